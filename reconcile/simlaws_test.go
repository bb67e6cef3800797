package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// lawful holds a call of the controller to what it knows.
func (p *simProcess) lawful(ctx context.Context, call, name string) {
	p.w.log("controller: %s %s", call, name)
	want, now := p.record(ctx, name), time.Now()
	m, obs := want.Machine, p.obs(name)
	if m == nil {
		p.w.breaks("%s of %s, of which nothing is remembered", call, name)
		return
	}
	if saidNow(m, now) {
		return
	}
	if h := activeHold(m, now); h != nil && h.PowerState == "" {
		p.w.breaks("%s of %s, which is held untouched", call, name)
	}
	power := EffectivePower(m, now)
	switch call {
	case "start":
		p.lawfulStart(m, power, now)
	case "agent-shutdown", "powerdown", "quit", "kill":
		in := obs.Intent
		begun := in != nil && in.Kind == driver.IntentRestart
		if m.Deleting == nil && power != manifest.PowerStopped && !begun {
			p.w.breaks("%s of %s, which should be %s", call, name, power)
		}
	case "pause", "resume":
		if obs.Guest == nil || (call == "pause") != (power == manifest.PowerPaused) {
			p.w.breaks("%s of %s, which should be %s", call, name, power)
		} else if s := obs.Guest.RunState; s != runRunning && s != runPaused && s != runPrelaunch {
			p.w.breaks("%s of %s, whose guest is %s", call, name, s)
		}
	case "forget":
		if m.Deleting == nil || obs.Presence != driver.Absent {
			p.w.breaks("forget of %s, which is %s and not to be deleted", name, obs.Presence)
		}
	}
}

// saidNow tells that something was said of a machine just now: then nobody can tell
// whether it was before or after what is done. A word has the time at which it was
// said, and counts when it is written, which waits for its turn; between a
// process's last look at the record and what it then does there is a moment too.
func saidNow(m *state.Machine, now time.Time) bool {
	const moment = time.Second
	just := func(at time.Time) bool { return !at.After(now) && now.Sub(at) < moment }
	return just(m.Updated) || m.Deleting != nil && just(m.Deleting.Since) || m.Hold != nil && just(m.Hold.Since)
}

func (p *simProcess) lawfulStart(m *state.Machine, power manifest.PowerState, now time.Time) {
	name := m.Object.Metadata.Name
	if m.Deleting != nil || power == manifest.PowerStopped {
		p.w.breaks("start of %s, which should be %s", name, power)
	}
	t := m.LastTermination
	if t == nil || t.Superseded || t.Generation != m.Generation {
		return
	}
	switch verdictOf(policyOf(m), t.Cause) {
	case verdictCompleted, verdictFailed:
		p.w.breaks("start of %s, which ended for good by %s", name, t.Cause)
	case verdictBackOff:
		if now.Before(m.NotBefore) {
			p.w.breaks("start of %s, %s too early after failure %d", name, m.NotBefore.Sub(now), m.Failures)
		}
	case verdictStart:
	}
}

// noteFolder notes since when the folder says what it says now.
func (w *simWorld) noteFolder() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	turn := func(is bool, on, off *time.Time) {
		if is && !on.After(*off) {
			*on = now
		}
		if !is && !off.After(*on) {
			*off = now
		}
	}
	complete := !w.gone
	seen := map[string]int{}
	for _, f := range w.files {
		complete = complete && !f.broken
		for name := range f.vms {
			seen[name]++
			complete = complete && seen[name] == 1
		}
	}
	turn(complete, &w.whole, &w.partial)
	for i := range w.made {
		name := fmt.Sprintf("m%d", i+1)
		present, absent := w.present[name], w.absent[name]
		turn(seen[name] > 0, &present, &absent)
		w.present[name], w.absent[name] = present, absent
	}
}

// lawfulPrune holds a prune to what the folder said when it was decided.
func (w *simWorld) lawfulPrune(name string, at time.Time) {
	if w.pruned[name].Equal(at) {
		return
	}
	w.pruned[name] = at
	missed := timing.Default().Absence
	switch {
	case !w.opt.Prune:
		w.breaks("%s is pruned, which nobody allowed", name)
	case w.absent[name].IsZero() || at.Sub(w.absent[name]) < missed:
		w.breaks("%s is pruned, absent since %s", name, w.absent[name])
	case w.present[name].After(w.absent[name]) && w.present[name].Before(at):
		w.breaks("%s is pruned, present since %s", name, w.present[name])
	case w.partial.After(w.whole) && w.partial.Before(at):
		w.breaks("%s is pruned by a listing that is incomplete since %s", name, w.partial)
	}
}

// check holds the records to what the folder has said.
func (w *simWorld) check() {
	records := w.records()
	for name, m := range records {
		if d := m.Deleting; d != nil && d.Prune {
			w.lawfulPrune(name, d.Since)
		}
	}
	for name, obs := range w.observations() {
		if obs.Presence == driver.Alive && records[name] == nil && w.disk.fail == nil {
			w.breaks("%s runs and nothing is remembered of it", name)
		}
	}
}

// converged holds the host to what the folder says after all faults have ended.
func (w *simWorld) converged() {
	records, seen := w.records(), w.observations()
	for name, m := range records {
		w.convergedMachine(name, m, seen[name])
	}
	for _, f := range w.files {
		for name, vm := range f.vms {
			o, err := manifest.NewObject(vm)
			if err != nil {
				w.t.Fatal(err)
			}
			if m := records[name]; m == nil {
				w.breaks("%s is declared and not remembered", name)
			} else if m.Digest != o.Digest || m.Invalid != nil || m.Undeclared {
				w.breaks("%s is not as its file says: %+v", name, m)
			}
		}
	}
}

func (w *simWorld) convergedMachine(name string, m *state.Machine, obs driver.Observed) {
	now := time.Now()
	power := EffectivePower(m, now)
	held := activeHold(m, now) != nil && m.Hold.PowerState == ""
	guard := w.opt.Prune && !w.opt.PruneAll
	switch {
	case m.Deleting != nil && !held:
		w.breaks("%s is to be deleted and still there", name)
		return
	case !w.declared(name) && w.opt.Prune && !guard && !held:
		w.breaks("%s is declared nowhere and was not pruned", name)
		return
	case held:
		return
	}
	alive := obs.Presence == driver.Alive
	if obs.Ended != nil {
		w.breaks("the end of %s is not recorded: %+v", name, obs.Ended)
	}
	if alive {
		s := obs.Guest.RunState
		if s != runIOError && s != runGuestPanicked && (s == runPaused || s == runPrelaunch) != (power == manifest.PowerPaused) {
			w.breaks("%s is %s and should be %s", name, s, power)
		}
		if power == manifest.PowerStopped {
			w.breaks("%s runs and should be stopped", name)
		}
		if obs.Freeze != nil && s == runRunning {
			w.breaks("the file systems of %s are frozen: %+v", name, obs.Freeze)
		}
		if m.Failures > 0 && s != runIOError && s != runGuestPanicked {
			w.breaks("%s has run well for long and has %d failures", name, m.Failures)
		}
		return
	}
	final := m.LastTermination != nil && !m.LastTermination.Superseded && m.LastTermination.Generation == m.Generation
	if final {
		v := verdictOf(policyOf(m), m.LastTermination.Cause)
		final = v == verdictCompleted || v == verdictFailed
	}
	if power != manifest.PowerStopped && !final {
		w.breaks("%s should be %s and does not run: last end %+v", name, power, m.LastTermination)
	}
}
