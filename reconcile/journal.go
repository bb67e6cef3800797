package reconcile

import (
	"context"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// Journal keeps what happened to machines; a state.Journal does. It has to be
// quick, or to give up soon: a convergence waits for it.
type Journal interface {
	Append(ctx context.Context, events ...state.Event) error
}

// journal writes events down. What happened has happened: when the journal
// cannot be written, that is logged and nothing fails.
func (e *Engine) journal(ctx context.Context, events []state.Event) {
	if e.cfg.Journal == nil || len(events) == 0 {
		return
	}
	if err := e.cfg.Journal.Append(context.WithoutCancel(ctx), events...); err != nil {
		e.cfg.Log.Warn("writing the journal failed", "vm", events[0].Machine, "events", len(events), "err", err)
	}
}

// event is an event of now.
func (e *Engine) event(machine string, generation int64, kind, reason, message string) state.Event {
	return state.Event{
		Time: e.cfg.Now(), Machine: machine, Type: kind, Reason: reason, Message: message, Who: e.cfg.Who, Generation: generation,
	}
}

// happened keeps an event for the next flush, so that a convergence without
// waits writes the journal once, and one with nothing to do not at all.
func (r *run) happened(kind, reason, message string) {
	generation := int64(0)
	if r.known != nil && r.known.Machine != nil {
		generation = r.known.Machine.Generation
	}
	r.events = append(r.events, r.e.event(r.name, generation, kind, reason, message))
}

// flush writes down what happened since the last time.
func (r *run) flush(ctx context.Context) {
	r.e.journal(ctx, r.events)
	r.events = nil
}

// stepHappened keeps that a step is done.
func (x *execution) stepHappened(s Step, message string) {
	kind, reason := s.event(x.obs.Ended)
	if s.Kind == StepRecordEnd && x.obs.Ended != nil && x.obs.Ended.Exit != "" {
		message += "; " + exitWords(x.obs.Ended.Exit)
	}
	x.run.happened(kind, reason, message)
}

// exitWords are an exit status in words: "exit status 0", "signal SIGABRT", or that
// nobody saw it.
func exitWords(exit string) string {
	if exit == driver.ExitNotSeen {
		return "exit status " + exit
	}
	return exit
}

// event is the type and the reason of a step that is done. Ended is the end that
// a StepRecordEnd has recorded.
func (s Step) event(ended *driver.Ended) (kind, reason string) {
	switch s.Kind {
	case StepRecordEnd:
		return endEvent(ended)
	case StepIdentity:
		return state.EventNormal, state.EventIdentity
	case StepCreateDisk, StepSetAside, StepGrowDisk, StepThrottleDisk:
		return s.diskEvent()
	case StepPlug, StepUnplug, StepDrop, StepMedium, StepAddCPUs, StepForward:
		return s.plugEvent()
	case StepStart:
		return state.EventNormal, state.EventStarted
	case StepAgentShutdown, StepPowerdown:
		return state.EventNormal, state.EventPoweringOff
	case StepQuit:
		return state.EventNormal, state.EventQuitting
	case StepKill:
		return state.EventWarning, state.EventKilled
	case StepThaw, StepPause, StepResume:
		return s.guestEvent()
	case StepClearIntent:
		return state.EventNormal, state.EventCancelled
	case StepTakeSnapshot:
		if s.Intent != nil {
			return state.EventNormal, state.EventSaving
		}
		return state.EventNormal, state.EventSnapshotTaken
	case StepFinishSnapshot:
		return state.EventNormal, state.EventSnapshotTaken
	case StepScheduleSnapshot, StepExpireSnapshot:
		return s.scheduleEvent()
	case StepDeleteSnapshot:
		return state.EventNormal, state.EventSnapshotDeleted
	case StepLoadSnapshot, StepFinishLoad, StepFailRestore, StepRevertDisks, StepEndRestore:
		return s.restoreEvent()
	case StepForget:
		return state.EventNormal, state.EventDeleted
	case StepForgetSnapshot:
		return state.EventNormal, state.EventSnapshotForgotten
	case StepEndHold:
		return state.EventNormal, state.EventHoldEnded
	default:
		return state.EventNormal, string(s.Kind)
	}
}

func (s Step) diskEvent() (kind, reason string) {
	if s.Kind == StepSetAside {
		return state.EventNormal, state.EventDiskSetAside
	}
	if s.Kind == StepGrowDisk {
		return state.EventNormal, state.EventDiskGrown
	}
	if s.Kind == StepThrottleDisk {
		return state.EventNormal, state.EventDiskThrottled
	}
	return state.EventNormal, state.EventDiskCreated
}

func (s Step) guestEvent() (kind, reason string) {
	if s.Kind == StepThaw {
		return state.EventWarning, state.EventThawed
	}
	if s.Kind == StepPause {
		return state.EventNormal, state.EventPaused
	}
	return state.EventNormal, state.EventResumed
}

func (s Step) restoreEvent() (kind, reason string) {
	if s.Kind == StepLoadSnapshot {
		return state.EventNormal, state.EventRestoring
	}
	if s.Kind == StepFinishLoad || s.Kind == StepRevertDisks {
		return state.EventNormal, state.EventRestored
	}
	return state.EventWarning, state.EventRestoreFailed
}

func (s Step) scheduleEvent() (kind, reason string) {
	if s.Kind == StepExpireSnapshot {
		return state.EventNormal, state.EventSnapshotExpired
	}
	return state.EventNormal, state.EventSnapshotDue
}

// endEvent tells how a process ended.
func endEvent(ended *driver.Ended) (kind, reason string) {
	if ended == nil {
		return state.EventNormal, state.EventStopped
	}
	switch ended.Cause {
	case driver.EndStopped:
		return state.EventNormal, state.EventStopped
	case driver.EndGuest:
		return state.EventNormal, state.EventGuestPowerOff
	case driver.EndSignal:
		return state.EventWarning, state.EventSignal
	case driver.EndCrash:
		return state.EventWarning, state.EventCrash
	case driver.EndPanic:
		return state.EventWarning, state.EventPanic
	case driver.EndWatchdog:
		return state.EventWarning, state.EventWatchdog
	case driver.EndQuit:
		return state.EventWarning, state.EventQuit
	case driver.EndHostReboot:
		return state.EventWarning, state.EventHostReboot
	case driver.EndStartFailed:
		return state.EventWarning, state.EventStartFailed
	default:
		return state.EventWarning, string(ended.Cause)
	}
}

// news are what the conditions and problems of now say that those remembered do
// not: each is told once, however often it is seen.
func (r *run) news(before []state.Condition) []state.Event {
	now, kept := r.result.Status.Conditions, r.events
	defer func() { r.events = kept }()
	r.events = nil
	stalled := conditionOf(before, ConditionStalled)
	for _, p := range r.result.Plan.Problems {
		if p.Reason == stalled.Reason || stalled.Message != "" && strings.Contains(stalled.Message, p.Message) {
			continue
		}
		kind := state.EventWarning
		if p.Owed() {
			kind = state.EventNormal
		}
		r.happened(kind, p.Reason, p.String())
	}
	// What is about to be corrected is told when that is done.
	owed := len(r.result.Plan.Steps) == 0
	for _, news := range []struct {
		condition, kind, reason string
		counts                  bool
	}{
		{ConditionRestartRequired, state.EventNormal, state.EventRestartRequired, owed},
		{ConditionRecreateRequired, state.EventNormal, state.EventRecreateRequired, owed},
		{ConditionDrifted, state.EventWarning, state.EventDrifted, owed},
		{ConditionManifestInvalid, state.EventWarning, state.EventManifestInvalid, true},
		{ConditionDiskSpaceLow, state.EventWarning, state.EventDiskSpaceLow, true},
		{ConditionProvisioningDrift, state.EventWarning, state.EventProvisioningDrift, conditionOf(now, ConditionProvisioningDrift).Reason == ReasonDataChanged},
	} {
		if c := conditionOf(now, news.condition); news.counts && c.Status == "True" && conditionOf(before, news.condition).Status != "True" {
			r.happened(news.kind, news.reason, c.Message)
		}
	}
	was, is := conditionOf(before, ConditionReady), conditionOf(now, ConditionReady)
	switch {
	case is.Status == "True" && was.Status != "True":
		r.happened(state.EventNormal, state.EventReady, "Ready")
	case is.Reason == ReasonReadinessTimeout && was.Reason != is.Reason:
		r.happened(state.EventWarning, state.EventNotReady, is.Message)
	}
	return r.events
}

// conditionOf is the condition of that type; the zero one when there is none.
func conditionOf(all []state.Condition, kind string) state.Condition {
	i := slices.IndexFunc(all, func(c state.Condition) bool { return c.Type == kind })
	if i < 0 {
		return state.Condition{}
	}
	return all[i]
}

// changeEvents tell what a person's word changed in a record.
func (e *Engine) changeEvents(before, after *state.Machine) []state.Event {
	var events []state.Event
	add := func(reason, message string) {
		events = append(events, e.event(after.Object.Metadata.Name, after.Generation, state.EventNormal, reason, message))
	}
	was, is := before.Hold, after.Hold
	switch {
	case is != nil && (was == nil || !was.Since.Equal(is.Since)):
		add(state.EventHeld, holdWords(is))
	case is == nil && was != nil:
		add(state.EventReleased, "the hold is ended; it was "+holdWords(was))
	}
	if r := after.Restore; r != nil && !sameRestore(before.Restore, r) {
		add(state.EventRestoring, "a restore of snapshot "+r.Snapshot+" was asked for")
	}
	if d := after.Deleting; d != nil && (before.Deleting == nil || before.Deleting.DeleteDisks != d.DeleteDisks) {
		message := "a delete was asked for"
		if d.DeleteDisks {
			message += ", with the disks"
		}
		add(state.EventDeleting, message)
	}
	return events
}

// events tell what an apply made of records, by machine.
func (a *admission) events(e *Engine) map[string][]state.Event {
	out := make(map[string][]state.Event)
	for _, o := range a.objects {
		if o.Object.Kind == manifest.KindImage {
			a.imageEvents(e, o, out)
			continue
		}
		vm, generation, what := o.Object.Name, int64(0), ""
		if o.Object.Kind == manifest.KindSnapshot {
			vm, what = a.snapshots[o.Object.Name].Object.Spec.VirtualMachine, "snapshot "+o.Object.Name+" "
		}
		if m := a.machines[vm]; m != nil {
			generation = m.Generation
		}
		add := func(reason, message string) {
			out[vm] = append(out[vm], e.event(vm, generation, state.EventNormal, reason, message))
		}
		switch o.Action {
		case ActionCreated:
			add(state.EventCreated, what+"applied for the first time by "+a.owner)
		case ActionConfigured:
			add(state.EventConfigured, what+a.configuredWords(o.Object))
		case ActionPruned:
			add(state.EventPruned, what+"is in no manifest of "+a.owner+" any more")
		case ActionUnchanged, ActionLeft:
		}
		if h := a.unheld[vm]; h != nil && what == "" {
			add(state.EventHoldEnded, "the spec has changed; it was "+holdWords(h))
		}
	}
	return out
}

// imageEvents tell the machines that have disks of an image what became of it.
func (a *admission) imageEvents(e *Engine, o ObjectChange, out map[string][]state.Event) {
	if o.Action != ActionConfigured {
		return
	}
	for name, m := range a.machines {
		if usesImage(m, o.Object.Name) {
			out[name] = append(out[name], e.event(name, m.Generation, state.EventNormal, state.EventConfigured, "image "+o.Object.Name+" changed"))
		}
	}
}

// configuredWords name the fields that a manifest changed.
func (a *admission) configuredWords(key manifest.ObjectKey) string {
	before, after := a.before[key.Name], a.machines[key.Name]
	if key.Kind != manifest.KindVirtualMachine || before == nil || after == nil {
		return "changed"
	}
	paths := changePaths(Plan{Changes: ObjectChanges(before, &after.Object)}, func(Change) bool { return true })
	if paths == "" {
		return "changed, and belongs to " + after.Owner
	}
	return "changed: " + paths
}
