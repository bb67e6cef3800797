package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/maqet/maqet/reconcile"
)

const (
	// patience is how long something may last before a person is told what is
	// being waited for.
	patience = time.Second
	// beat is how often live lines are drawn again.
	beat = 250 * time.Millisecond
)

// progress prints each step as it is confirmed, and what is waited for when
// that takes longer than patience: a live line per machine on a terminal, one
// plain line on stderr otherwise.
type progress struct {
	env environment

	mu sync.Mutex
	// waiting holds what is begun and not confirmed, by subject, such as vm/web.
	waiting map[string]*waiting
	// pulls are the images that are being fetched.
	pulls pulls
	// screen draws live lines; nil where there is no terminal.
	screen *screen
	// timer beats while something is waited for.
	timer   *time.Timer
	stopped bool
}

// waiting is what one subject waits for.
type waiting struct {
	message string
	// amount says how far it is; nil when nobody knows.
	amount func() string
	since  time.Time
	// told is true once the plain line was printed.
	told bool
}

// newProgress draws live lines only where a person looks at both streams and
// no log is written between them.
func newProgress(a *app) *progress {
	env := a.env
	p := &progress{env: env, waiting: map[string]*waiting{}, pulls: pulls{env: env, going: map[string]*pulling{}}}
	if env.outTTY && env.errTTY && !a.globals.verbose {
		p.screen = &screen{out: env.err, size: env.size}
		if env.color(env.errTTY) {
			p.screen.style = styleDim
		}
	}
	return p
}

// report is told of every step by the engine.
func (p *progress) report(ev reconcile.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, everything)
	if ev.Image != "" {
		p.image(ev)
		return
	}
	switch {
	case ev.Err != nil:
		// The machine's result carries the error; it is printed once, there.
		delete(p.waiting, "vm/"+ev.Machine)
	case ev.Done:
		delete(p.waiting, "vm/"+ev.Machine)
		p.line(ev.Machine, ev.Message)
	default:
		p.expect("vm/"+ev.Machine, ev.Message)
	}
}

// image is told of every event of an image that is fetched.
func (p *progress) image(ev reconcile.Event) {
	columns := 0
	if p.screen != nil {
		columns, _ = p.screen.measure()
	}
	p.pulls.take(ev, p.screen != nil, columns-1)
	delete(p.waiting, "vm/"+ev.Machine)
	if ev.Done && ev.Machine != "" {
		p.line(ev.Machine, ev.Message)
	}
	if p.timer == nil && !p.stopped {
		p.timer = time.AfterFunc(beat, p.tick)
	}
}

// begin tells of something that may take long and that no step reports. It is
// over with the next event of the subject, or with stop.
func (p *progress) begin(subject, message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expect(subject, message)
}

// measure tells besides how far something is that was begun.
func (p *progress) measure(subject string, amount func() string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.waiting[subject]; w != nil {
		w.amount = amount
	}
}

// everything is the subject of what concerns no machine alone. It is over with
// the first event of any machine.
const everything = "maqet"

// beginAll begins for machines that wait until they may be looked at: another
// maqet may be acting on them, or too many are starting.
func (p *progress) beginAll(names []string) {
	for _, name := range names {
		p.begin("vm/"+name, "waiting for its turn")
	}
}

// end ends what was begun for a subject.
func (p *progress) end(subject string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, subject)
}

// note prints a line that no step reported.
func (p *progress) note(machine, message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line(machine, message)
}

// line prints a lasting line above the live ones.
func (p *progress) line(machine, message string) {
	if p.screen != nil {
		p.screen.clear()
	}
	fmt.Fprintf(p.env.out, "vm/%s %s\n", machine, message)
	p.show()
}

// expect arranges that a person is told when something takes long. A wait that
// is begun again for the same thing has lasted since its first beginning.
func (p *progress) expect(subject, message string) {
	if w := p.waiting[subject]; p.stopped || w != nil && w.message == message {
		return
	}
	p.waiting[subject] = &waiting{message: message, since: time.Now()}
	if p.timer == nil {
		p.timer = time.AfterFunc(beat, p.tick)
	}
}

func (p *progress) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	p.show()
	if len(p.waiting)+len(p.pulls.going) == 0 {
		p.timer = nil
		return
	}
	p.timer.Reset(beat)
}

// show tells of every wait that outlasts patience.
func (p *progress) show() {
	var live []string
	for _, subject := range slices.Sorted(maps.Keys(p.waiting)) {
		w := p.waiting[subject]
		lasted := time.Since(w.since)
		switch {
		case lasted < patience:
		case p.screen != nil:
			message := w.message
			if w.amount != nil {
				message += ", " + w.amount()
			}
			live = append(live, fmt.Sprintf("%s %s ... %ds", subject, message, int(lasted.Seconds())))
		case !w.told:
			w.told = true
			fmt.Fprintf(p.env.err, "%s %s ...\n", subject, w.message)
		}
	}
	if p.screen != nil {
		live = append(p.pulls.lines(), live...)
	}
	if p.screen != nil && !slices.Equal(live, p.screen.drawn) {
		p.screen.draw(live)
	}
}

// stop ends all live lines; later lines are plain.
func (p *progress) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	clear(p.waiting)
	clear(p.pulls.going)
	if p.timer != nil {
		p.timer.Stop()
	}
	if p.screen != nil {
		p.screen.clear()
	}
}
