package reconcile

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// StatusOf says how a machine is: its phase and conditions are computed from
// the observation and the plan each time; only when a condition last changed is
// taken from the record.
func StatusOf(want Desired, obs driver.Observed, plan Plan, now time.Time) Status {
	return statusOf(want, obs, plan, Options{}, now)
}

func statusOf(want Desired, obs driver.Observed, plan Plan, opt Options, now time.Time) Status {
	s := Status{PID: obs.PID, StartedAt: obs.StartedAt, Cgroup: obs.Cgroup}
	s.Phase, s.Reason = phaseOf(want.Machine, &obs, opt, now)
	if s.Phase == PhasePending {
		s.Reason = cmp.Or(pulling(&obs, plan.Wait), s.Reason)
	}
	rec := want.Machine
	s.UID = machineUID(rec, &obs)
	if rec != nil {
		s.ObservedGeneration = rec.Generation
		s.Restarts = rec.Restarts
		if s.LastTermination = rec.LastTermination; obs.Ended != nil {
			s.LastTermination = terminationOf(rec, &obs)
		}
		if s.Failures = rec.Failures; obs.Presence == driver.Absent {
			if at, failures := nextTry(rec, &obs, opt, now); s.Phase == PhaseCrashLoopBackOff {
				s.NextTry, s.Failures = at, failures
			}
		}
		s.Hold = plan.Held
		s.Deleting = rec.Deleting
		s.NextSnapshot = nextSlot(rec, now)
		s.Backup = backupStatus(rec, now)
	}
	s.Observed = observedStatus(obs.Guest)
	s.Provisioning = provisioningStatus(rec, &obs)
	s.Conditions = conditionsOf(want, &obs, plan, s, opt, now)
	s.Snapshots = snapshotStatuses(want, &obs)
	return s
}

// phaseOf is the phase and, where that says more, a reason.
func phaseOf(rec *state.Machine, obs *driver.Observed, opt Options, now time.Time) (Phase, string) {
	switch obs.Presence {
	case driver.Absent:
		return absentPhase(rec, obs, opt, now)
	case driver.Alive:
		if obs.Guest == nil {
			return PhaseUnknown, driver.ReasonNoAnswer
		}
		if ending(rec, obs) {
			return PhaseStopping, string(obs.Intent.Stage)
		}
		return runPhase(obs)
	case driver.Unresponsive:
		switch {
		case ending(rec, obs) && now.Before(obs.Intent.Deadline):
			return PhaseStopping, string(obs.Intent.Stage)
		case saving(rec, obs, now):
			return PhaseRunning, ReasonSaving
		}
		return PhaseUnresponsive, obs.Reason
	case driver.Unknown:
		return PhaseUnknown, obs.Reason
	default:
		return PhaseUnknown, ""
	}
}

func runPhase(obs *driver.Observed) (Phase, string) {
	switch obs.Guest.RunState {
	case runRunning, runSaveVM, runFinishMigrate:
		return PhaseRunning, ""
	case runSuspended:
		return PhaseRunning, "Suspended"
	case runPaused:
		return PhasePaused, ""
	case runPrelaunch:
		if startedPaused(obs) {
			return PhasePaused, ""
		}
		return PhaseStarting, ""
	case runIOError:
		return PhasePaused, ReasonIOError
	case runRestoreVM:
		if jobRunning(obs.Guest, "snapshot-load") {
			return PhasePaused, ReasonRestoring
		}
		return PhaseFailed, obs.Guest.RunState
	case runInternalError, runGuestPanicked, runWatchdog:
		return PhaseFailed, obs.Guest.RunState
	case runShutdown:
		return PhaseStopping, ""
	default:
		return PhaseUnknown, obs.Guest.RunState
	}
}

func absentPhase(rec *state.Machine, obs *driver.Observed, opt Options, now time.Time) (Phase, string) {
	if rec == nil || EffectivePower(rec, now) == manifest.PowerStopped {
		return PhaseStopped, ""
	}
	if r := rec.Restore; r != nil && r.Failed != "" {
		return PhaseFailed, ReasonRestoreFailed
	}
	t := lastTermination(rec, obs)
	if t == nil || t.Generation != rec.Generation {
		return PhasePending, ""
	}
	switch verdictOf(policyOf(rec), t.Cause) {
	case verdictCompleted:
		return PhaseCompleted, ""
	case verdictFailed:
		return PhaseFailed, string(t.Cause)
	case verdictBackOff:
		return failedPhase(rec, obs, opt, now), string(t.Cause)
	case verdictStart:
		return PhasePending, string(t.Cause)
	default:
		return PhasePending, string(t.Cause)
	}
}

// failedPhase is the phase of a machine that is to be started again. Only
// somebody who supervises it waits, until it is started, and unless it is held to
// be left alone.
func failedPhase(rec *state.Machine, obs *driver.Observed, opt Options, now time.Time) Phase {
	h := activeHold(rec, now)
	leftAlone := h != nil && h.PowerState == ""
	switch t := lastTermination(rec, obs); {
	case opt.Supervise && !leftAlone:
		return PhaseCrashLoopBackOff
	case t.Cause == driver.EndSignal || t.Cause == driver.EndGuest:
		return PhasePending
	default:
		return PhaseFailed
	}
}

// observedStatus is what QEMU says of itself; nil when only little was asked.
func observedStatus(g *driver.Guest) *ObservedStatus {
	if g == nil {
		return nil
	}
	o := &ObservedStatus{
		CPUs: g.CPUs, Memory: manifest.Quantity(g.Memory), RunState: g.RunState,
		Accelerator: g.Accelerator, MachineType: g.MachineType, CPUModel: g.CPUModel, Watchdog: g.Watchdog, TPM: g.TPM,
		Disks: []driver.GDisk{}, NICs: []driver.GNIC{}, Devices: []driver.GDevice{},
	}
	switch {
	case g.NVRAM == nil:
	case g.NVRAM.Name == driver.FirmwareSecureBoot.NVRAMNode():
		o.Firmware = "UEFI with Secure Boot"
	default:
		o.Firmware = "UEFI"
	}
	if g.Version != (driver.Version{}) {
		o.QEMUVersion = g.Version.String()
	}
	o.Disks = append(o.Disks, g.Disks...)
	o.NICs = append(o.NICs, g.NICs...)
	o.Devices = append(o.Devices, g.Devices...)
	return o
}

// conditionsOf are Ready, always, and the others while they are true.
func conditionsOf(want Desired, obs *driver.Observed, plan Plan, s Status, opt Options, now time.Time) []state.Condition {
	out := []state.Condition{readyCondition(want.Machine, obs, s, opt, now)}
	add := func(kind, reason, message string) {
		out = append(out, state.Condition{Type: kind, Status: "True", Reason: reason, Message: message})
	}
	if len(plan.Steps) > 0 {
		add(ConditionReconciling, "StepsToDo", stepWords(plan.Steps))
	} else if plan.Wait != nil {
		add(ConditionReconciling, "Waiting", "waiting for "+plan.Wait.For)
	}
	if len(plan.Problems) > 0 {
		add(ConditionStalled, plan.Problems[0].Reason, problemWords(plan.Problems))
	}
	if owed := changePaths(plan, func(c Change) bool { return c.Pending && c.Class == ClassRestart }); owed != "" {
		add(ConditionRestartRequired, "ChangesPending", owed+": apply with --allow-restart, or restart it")
	}
	if lost := changePaths(plan, func(c Change) bool { return c.Pending && isImagePath(c.Path) }); lost != "" {
		add(ConditionRecreateRequired, "ImageChanged", lost+": the disk was made of another image, and is kept as it is until apply is told --recreate-disk")
	}
	if drift := changePaths(plan, func(c Change) bool { return c.Drift }); drift != "" {
		add(ConditionDrifted, "MachineChanged", drift)
	}
	if plan.Held != nil {
		add(ConditionHeld, "HeldByOperator", holdWords(plan.Held))
	}
	if m := want.Machine; m != nil && m.Invalid != nil {
		add(ConditionManifestInvalid, "LastGoodKept", m.Invalid.Message)
	}
	diskConditions(want.Machine, obs, add)
	backupCondition(want.Machine, add)
	if c, drifted := provisioningCondition(want.Machine, obs); drifted {
		out = append(out, c)
	}
	if s.Phase == PhaseUnresponsive {
		add(ConditionUnresponsive, cmp.Or(obs.Reason, driver.ReasonNoAnswer), obs.Message)
	}
	var before []state.Condition
	if want.Machine != nil {
		before = want.Machine.Conditions
	}
	return mergeConditions(before, out, s.ObservedGeneration, now)
}

// isImagePath tells a change that costs a disk.
func isImagePath(path string) bool {
	return strings.HasPrefix(path, "spec.disks[") && strings.HasSuffix(path, ".image")
}

func readyCondition(rec *state.Machine, obs *driver.Observed, s Status, opt Options, now time.Time) state.Condition {
	c := state.Condition{Type: ConditionReady, Status: "False", Reason: string(s.Phase)}
	switch {
	case s.Reason == ReasonSaving:
		c.Status, c.Reason, c.Message = "Unknown", ReasonSaving, "QEMU answers nobody while it saves memory for a snapshot"
	case obs.Presence == driver.Unknown || obs.Presence == driver.Unresponsive:
		c.Status, c.Message = "Unknown", obs.Message
	case obs.Presence == driver.Alive && s.Phase == PhaseRunning && obs.Ready:
		c.Status, c.Reason = "True", "Ready"
	case obs.Presence == driver.Alive && s.Phase == PhaseRunning:
		c.Reason, c.Message = "NotReadyYet", "the readiness probe has not succeeded yet"
		if rec != nil && !now.Before(readyDeadline(rec, obs, opt.withDefaults())) {
			c.Reason, c.Message = ReasonReadinessTimeout, "the readiness probe has not succeeded in time"
		}
	}
	return c
}

// mergeConditions keeps the time of those whose status is as before.
func mergeConditions(before, now []state.Condition, generation int64, at time.Time) []state.Condition {
	for i := range now {
		c := &now[i]
		c.ObservedGeneration, c.LastTransitionTime = generation, at
		j := slices.IndexFunc(before, func(b state.Condition) bool { return b.Type == c.Type })
		if j >= 0 && before[j].Status == c.Status && !before[j].LastTransitionTime.IsZero() {
			c.LastTransitionTime = before[j].LastTransitionTime
		}
	}
	return now
}

func stepWords(steps []Step) string {
	var words []string
	for _, s := range steps {
		words = append(words, s.String())
	}
	return strings.Join(words, ", ")
}

// String is the step in a few words.
func (s Step) String() string {
	text := string(s.Kind)
	if what := cmp.Or(s.Disk, s.Snapshot); what != "" {
		text += " " + what
	}
	return text
}

func problemWords(problems []Problem) string {
	var words []string
	for _, p := range problems {
		words = append(words, p.String())
	}
	return strings.Join(words, "; ")
}

// String is the message and, after it, the hint.
func (p Problem) String() string {
	if p.Hint == "" {
		return p.Message
	}
	return p.Message + " (" + p.Hint + ")"
}

func holdWords(h *state.Hold) string {
	text := "held by " + h.Who
	if h.PowerState != "" {
		text = "held " + string(h.PowerState) + " by " + h.Who
	}
	if h.Why != "" {
		text += ": " + h.Why
	}
	if !h.Until.IsZero() {
		text += ", until " + h.Until.UTC().Format(time.RFC3339)
	}
	if h.Boot != "" {
		text += ", until the host boots again"
	}
	return text
}

// changePaths are the paths of the changes that match.
func changePaths(plan Plan, match func(Change) bool) string {
	var paths []string
	for _, c := range plan.Changes {
		if match(c) {
			paths = append(paths, c.Path)
		}
	}
	return strings.Join(paths, ", ")
}

// snapshotStatuses are the snapshots that are wanted, found, or both.
func snapshotStatuses(want Desired, obs *driver.Observed) []SnapshotStatus {
	byName := make(map[string]SnapshotStatus)
	for tag, found := range obs.Snapshots {
		s := SnapshotStatus{
			Name: tag, Phase: SnapshotTaken, Method: manifest.SnapshotDisk, TakenAt: found.Date,
			Disks: found.Disks, MemorySize: manifest.Quantity(found.VMStateSize),
		}
		if found.VMStateSize > 0 {
			s.Method = manifest.SnapshotFull
		}
		if r := found.Record; r != nil {
			s.Method, s.TakenAt, s.Consistency, s.NotQuiesced = r.Method, r.Taken, r.Consistency, r.NotQuiesced
			s.Duration, s.Parent = manifest.Duration(r.Duration), r.Parent
			if r.Paused != nil {
				s.Paused, s.PausedAtMost = manifest.Duration(r.Paused.Lasted()), r.Paused.AtMost
			}
		}
		byName[tag] = s
	}
	uid := machineUID(want.Machine, obs)
	for _, rec := range want.Snapshots {
		tag := rec.Object.Metadata.Name
		s, exists := byName[tag]
		s.Name, s.Declared = tag, true
		s.Method = cmp.Or(s.Method, rec.Object.Spec.Method)
		s.Phase, s.Message = declaredPhase(rec, uid, exists, obs)
		if s.TakenAt.IsZero() && rec.TakenUID == uid {
			s.TakenAt = rec.TakenAt
		}
		byName[tag] = s
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b SnapshotStatus) int { return strings.Compare(a.Name, b.Name) })
}

// declaredPhase is the phase of a snapshot that an object wants.
func declaredPhase(rec *state.Snapshot, uid string, exists bool, obs *driver.Observed) (SnapshotPhase, string) {
	in := obs.Intent
	switch {
	case rec.Deleting != nil:
		return SnapshotDeleting, ""
	case in != nil && in.Snapshot != nil && in.Snapshot.Tag == rec.Object.Metadata.Name:
		return SnapshotTaking, ""
	case rec.TakenUID != "" && rec.TakenUID == uid && !exists && obs.SnapshotsKnown:
		return SnapshotMissing, "it was taken and is gone; it is not taken again"
	case rec.TakenUID != "" && rec.TakenUID == uid:
		return SnapshotTaken, ""
	case rec.Failed != "":
		return SnapshotFailed, rec.Failed
	default:
		return SnapshotPending, ""
	}
}
