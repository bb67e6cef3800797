package main

import (
	"fmt"
	"sync"
	"time"

	live "github.com/jedib0t/go-pretty/v6/progress"

	"github.com/maqet/maqet/reconcile"
)

// patience is how long something may last before a person is told what is
// being waited for.
const patience = time.Second

// progress prints each step as it is confirmed, and what is waited for when
// that takes longer than patience: a live line per machine on a terminal, one
// plain line on stderr otherwise.
type progress struct {
	env environment

	mu sync.Mutex
	// waiting holds what is begun and not confirmed, by machine.
	waiting map[string]*waiting
	// screen draws live lines; nil until one is needed, always nil in a pipe.
	screen  live.Writer
	stopped bool
	drawn   sync.WaitGroup
}

type waiting struct {
	timer   *time.Timer
	tracker *live.Tracker
}

func newProgress(env environment) *progress {
	return &progress{env: env, waiting: map[string]*waiting{}}
}

// report is told of every step by the engine.
func (p *progress) report(ev reconcile.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle(ev.Machine, ev.Err == nil)
	switch {
	case ev.Err != nil:
		// The machine's result carries the error; it is printed once, there.
	case ev.Done:
		p.line(ev.Machine, ev.Message)
	case !p.stopped:
		p.expect(ev)
	}
}

// note prints a line that no step reported.
func (p *progress) note(machine, message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line(machine, message)
}

func (p *progress) line(machine, message string) {
	text := fmt.Sprintf("vm/%s %s", machine, message)
	if p.screen != nil {
		p.screen.Log("%s", text)
		return
	}
	fmt.Fprintln(p.env.out, text)
}

// expect arranges that a person is told when ev takes long.
func (p *progress) expect(ev reconcile.Event) {
	w := &waiting{}
	p.waiting[ev.Machine] = w
	w.timer = time.AfterFunc(patience, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.stopped || p.waiting[ev.Machine] != w {
			return
		}
		p.show(ev, w)
	})
}

func (p *progress) show(ev reconcile.Event, w *waiting) {
	if !p.env.errTTY || !p.env.outTTY {
		fmt.Fprintf(p.env.err, "vm/%s %s ...\n", ev.Machine, ev.Message)
		return
	}
	if p.screen == nil {
		p.screen = newScreen(p.env)
		p.drawn.Go(p.screen.Render)
	}
	w.tracker = &live.Tracker{Message: fmt.Sprintf("vm/%s %s", ev.Machine, ev.Message), RemoveOnCompletion: true}
	p.screen.AppendTracker(w.tracker)
}

func newScreen(env environment) live.Writer {
	screen := live.NewWriter()
	screen.SetOutputWriter(env.err)
	screen.SetAutoStop(false)
	screen.SetUpdateFrequency(100 * time.Millisecond)
	screen.SetTrackerPosition(live.PositionRight)
	style := live.StyleDefault
	style.Visibility = live.StyleVisibility{Time: true, TrackerOverall: false}
	if env.color(env.errTTY) {
		style.Colors.Message = styleDim
	}
	screen.SetStyle(style)
	return screen
}

// settle ends what was shown of a machine.
func (p *progress) settle(machine string, ok bool) {
	w := p.waiting[machine]
	if w == nil {
		return
	}
	delete(p.waiting, machine)
	w.timer.Stop()
	switch {
	case w.tracker == nil:
	case ok:
		w.tracker.MarkAsDone()
	default:
		w.tracker.MarkAsErrored()
	}
}

// stop ends all live lines; later lines are plain.
func (p *progress) stop() {
	p.mu.Lock()
	p.stopped = true
	for machine := range p.waiting {
		p.settle(machine, true)
	}
	screen := p.screen
	p.mu.Unlock()
	if screen == nil {
		return
	}
	screen.Stop()
	p.drawn.Wait()
	p.mu.Lock()
	p.screen = nil
	p.mu.Unlock()
}

// printLeftovers prints what a machine's result says besides its steps: why it
// failed, what is wrong, what is owed.
func printLeftovers(env environment, r reconcile.Result) {
	if r.Err != nil {
		printError(env, r.Err)
	}
	for _, problem := range r.Plan.Problems {
		if r.Err != nil && problem.Err != nil {
			continue
		}
		printProblem(env, r.Machine, problem)
	}
	if r.KeptAt != "" {
		announce(env, r.Machine, "disks are kept in %s", r.KeptAt)
	}
	if r.Plan.Held != nil {
		announce(env, r.Machine, "%s", describeHold(r.Plan.Held))
	}
	for _, c := range r.Plan.Changes {
		if c.Pending {
			announce(env, r.Machine, "pending: %s", describeChange(c))
		}
	}
	if owesRestart(r.Plan) {
		announce(env, r.Machine, "needs a restart for that: maqet restart %s, or apply with --allow-restart", r.Machine)
	}
}

func printProblem(env environment, machine string, problem reconcile.Problem) {
	text := fmt.Sprintf("vm/%s %s: %s", machine, problem.Reason, problem.Message)
	if env.color(env.errTTY) {
		text = styleBad.Sprintf("vm/%s", machine) + fmt.Sprintf(" %s: %s", problem.Reason, problem.Message)
	}
	if problem.Hint != "" {
		text += "; " + problem.Hint
	}
	fmt.Fprintln(env.err, text)
}

func owesRestart(p reconcile.Plan) bool {
	for _, c := range p.Changes {
		if c.Pending && c.Class == reconcile.ClassRestart {
			return true
		}
	}
	return false
}
