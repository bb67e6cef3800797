package reconcile

import (
	"context"
	"fmt"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// look is a fresh look at what the steps have brought about. A start that was the
// last of them has looked already, when its QEMU had answered.
func (x *execution) look(ctx context.Context) driver.Observed {
	if x.began != nil {
		obs := *x.began
		x.run.e.lookAtImages(&obs, *x.want)
		return obs
	}
	return x.run.e.observe(ctx, x.run.name, *x.want, driver.DepthFull)
}

// confirm compares what the executed steps should have brought about with a
// fresh look, and only then calls them done.
func (x *execution) confirm(obs driver.Observed) error {
	var first error
	for i, s := range x.did {
		result := &x.run.result.Steps[x.first+i]
		message, ok := s.seen(obs)
		if s.Kind == StepAgentShutdown && x.declined != "" {
			message = "the guest agent could not be asked to power off: " + x.declined
		}
		if !ok {
			err := &Error{
				Object: "vm/" + x.run.name, Op: s.String() + " of", Err: ErrNotConfirmed, Detail: message,
				Hint: "see maqet describe " + x.run.name,
			}
			result.Err = err
			x.run.e.tell(Event{Machine: x.run.name, Step: string(s.Kind), Message: message, Err: err})
			x.run.happened(state.EventWarning, state.EventStepFailed, err.Error())
			if first == nil {
				first = err
			}
			continue
		}
		if at := x.aside[s.Disk]; s.Kind == StepSetAside && at != "" {
			message += ", to " + at
		}
		if x.bitmaps != "" && (s.Kind == StepLoadSnapshot || s.Kind == StepRevertDisks) {
			message += "; " + x.bitmaps
		}
		result.Message = message
		x.stepHappened(s, message)
		x.run.e.tell(Event{Machine: x.run.name, Step: string(s.Kind), Message: message, Done: true})
	}
	if x.broke != nil {
		x.run.happened(state.EventWarning, state.EventStepFailed, x.broke.Error())
	}
	return first
}

// seen tells whether an observation shows what the step was for, and in words
// what it shows. The end of a process that was told to end is seen later.
func (s Step) seen(obs driver.Observed) (message string, ok bool) {
	switch s.Kind {
	case StepRecordEnd:
		return s.Why, obs.Ended == nil
	case StepIdentity:
		return "its identity is written", obs.Identity != nil
	case StepCreateDisk, StepSetAside, StepGrowDisk, StepThrottleDisk:
		return s.seenDisk(obs)
	case StepPlug, StepUnplug, StepDrop, StepMedium, StepAddCPUs, StepForward:
		return s.seenPlug(obs)
	case StepStart:
		return seenStart(obs)
	case StepAgentShutdown, StepPowerdown, StepQuit, StepKill:
		return s.told(), true
	case StepThaw, StepPause, StepResume:
		return s.seenInGuest(obs)
	case StepClearIntent:
		return s.Why, obs.Intent == nil
	case StepTakeSnapshot:
		return s.seenTake(obs)
	case StepFinishSnapshot:
		_, exists := obs.Snapshots[s.Snapshot]
		return "snapshot " + s.Snapshot + " is taken", exists || !obs.SnapshotsKnown
	case StepDeleteSnapshot:
		_, exists := obs.Snapshots[s.Snapshot]
		return "snapshot " + s.Snapshot + " is deleted", !exists
	case StepLoadSnapshot, StepFinishLoad, StepFailRestore, StepRevertDisks, StepEndRestore:
		return s.seenRestore(obs)
	case StepForget:
		return "deleted", obs.Presence == driver.Absent
	case StepForgetSnapshot, StepEndHold, StepScheduleSnapshot, StepExpireSnapshot:
		return s.remembered(), true
	default:
		return string(s.Kind), true
	}
}

// remembered says what a step did that concerns the records alone.
func (s Step) remembered() string {
	if s.Kind == StepForgetSnapshot {
		return "forgot snapshot " + s.Snapshot + ": " + s.Why
	}
	if s.Kind == StepScheduleSnapshot {
		return "snapshot " + s.Snapshot + " is asked for by the schedule: " + s.Why
	}
	if s.Kind == StepExpireSnapshot {
		return "snapshot " + s.Snapshot + " is kept no longer: " + s.Why
	}
	return "the hold is over: " + s.Why
}

// seenResume is true for a guest that runs on, and false for one whose disk has failed
// again at once.
func seenResume(obs driver.Observed) (message string, ok bool) {
	if obs.Guest != nil && obs.Guest.RunState == runIOError {
		return "it failed again at once: " + ioErrorWords(&obs), false
	}
	return "resumed", obs.Guest == nil || obs.Guest.RunState != runPaused && !startedPaused(&obs)
}

// seenDisk is seen for the steps that concern one disk. A new one is there and of the
// image that it should be of; in the place of one that was moved away may be another.
func (s Step) seenDisk(obs driver.Observed) (message string, ok bool) {
	f := obs.Files[s.Disk]
	if s.Kind == StepSetAside {
		return "moved disk " + s.Disk + " aside", !f.Exists || f.Image != s.Digest
	}
	if s.Kind == StepGrowDisk {
		return "grew disk " + s.Disk + ": " + s.Why, imageSize(&obs, s.Disk) >= s.Size.Bytes()
	}
	if s.Kind == StepThrottleDisk {
		return "disk " + s.Disk + " is limited: " + s.Why, s.seenThrottle(obs)
	}
	return "created disk " + s.Disk + ": " + s.Why, f.Exists && (s.Digest == "" || f.Image == s.Digest)
}

// seenThrottle tells whether a drive has the limits that it should have. One that is
// gone, or whose medium is, has none any more.
func (s Step) seenThrottle(obs driver.Observed) bool {
	if obs.Guest == nil || obs.Guest.Brief {
		return true
	}
	iops, bps := s.Throttle.Limits()
	for _, d := range obs.Guest.Disks {
		if d.Name == s.Disk && !d.Empty {
			return d.IOPS == iops && d.BPS == bps
		}
	}
	return true
}

// seenInGuest is seen for the steps that change how a running guest is.
func (s Step) seenInGuest(obs driver.Observed) (message string, ok bool) {
	g := obs.Guest
	switch s.Kind { //nolint:exhaustive // the others are seen elsewhere
	case StepThaw:
		return "thawed the guest's file systems: " + s.Why, obs.Freeze == nil || obs.Freeze.Held
	case StepPause:
		return "paused", g == nil || g.RunState != runRunning
	default:
		return seenResume(obs)
	}
}

// told says what the process was told.
func (s Step) told() string {
	words := "killed QEMU"
	switch s.Kind { //nolint:exhaustive // the others tell nothing
	case StepAgentShutdown:
		words = "asked the guest agent to power off"
	case StepPowerdown:
		words = "asked the guest to power off"
	case StepQuit:
		words = "told QEMU to quit"
	}
	return words + ": " + s.Why
}

// seenStart is true for a guest that runs, and for one that was seen to run by
// the start itself and has ended since: what comes of that is the next plan's.
func seenStart(obs driver.Observed) (string, bool) {
	switch {
	case obs.Presence == driver.Alive && obs.Guest != nil:
		return fmt.Sprintf("started, pid %d, QEMU says %s", obs.PID, obs.Guest.RunState), true
	case obs.Presence == driver.Absent && obs.Ended != nil:
		return "started, and ended again: " + endWords(obs.Ended), obs.Ended.Cause == driver.EndGuest
	default:
		return "the machine is " + string(obs.Presence) + " " + obs.Message, false
	}
}

func (s Step) seenTake(obs driver.Observed) (string, bool) {
	if s.Intent != nil {
		return "saving snapshot " + s.Snapshot, true
	}
	_, exists := obs.Snapshots[s.Snapshot]
	return "snapshot " + s.Snapshot + " is taken", exists || !obs.SnapshotsKnown
}

func (s Step) seenRestore(obs driver.Observed) (string, bool) {
	if s.Kind == StepLoadSnapshot {
		return "loading snapshot " + s.Snapshot, true
	}
	if s.Kind == StepFinishLoad {
		return "snapshot " + s.Snapshot + " is restored, with memory", obs.Presence == driver.Alive
	}
	if s.Kind == StepRevertDisks {
		return "disks set back to snapshot " + s.Snapshot, true
	}
	if s.Kind == StepFailRestore {
		return "snapshot " + s.Snapshot + " could not be loaded: " + s.Why, true
	}
	return "snapshot " + s.Snapshot + " is not restored: " + s.Why, true
}

// begins says what a step is about to do.
func (s Step) begins() string {
	switch s.Kind {
	case StepRecordEnd, StepIdentity, StepClearIntent, StepForgetSnapshot, StepEndHold, StepFailRestore, StepEndRestore, StepScheduleSnapshot, StepExpireSnapshot:
		return s.String()
	case StepLoadSnapshot, StepFinishLoad:
		return "loading snapshot " + s.Snapshot
	case StepRevertDisks:
		return "setting its disks back to snapshot " + s.Snapshot
	case StepCreateDisk:
		return "creating disk " + s.Disk
	case StepSetAside:
		return "moving disk " + s.Disk + " aside"
	case StepGrowDisk:
		return "growing disk " + s.Disk
	case StepThrottleDisk:
		return "limiting disk " + s.Disk
	case StepPlug, StepUnplug, StepDrop, StepMedium, StepAddCPUs, StepForward:
		return s.plugBegins()
	case StepStart:
		return "starting"
	case StepAgentShutdown:
		return "asking the guest agent to power off"
	case StepPowerdown:
		return "asking the guest to power off"
	case StepQuit:
		return "telling QEMU to quit"
	case StepKill:
		return "killing QEMU"
	case StepThaw, StepPause, StepResume:
		return s.turnBegins()
	case StepTakeSnapshot, StepFinishSnapshot:
		if s.Method == manifest.SnapshotFull {
			return "saving snapshot " + s.Snapshot + " with memory"
		}
		return "taking snapshot " + s.Snapshot
	case StepDeleteSnapshot:
		return "deleting snapshot " + s.Snapshot
	case StepForget:
		return "deleting"
	default:
		return s.String()
	}
}

// turnBegins says what a step is about to do that changes how a running guest is.
func (s Step) turnBegins() string {
	if s.Kind == StepThaw {
		return "thawing the guest's file systems"
	}
	if s.Kind == StepPause {
		return "pausing"
	}
	return "resuming"
}
