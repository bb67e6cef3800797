package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// BackupOptions say how a backup is made.
type BackupOptions struct {
	// Full copies everything, whatever the spec says.
	Full bool
	// AcceptTarget takes the target as it is, although it is not the folder that was used
	// before.
	AcceptTarget bool
	// Scheduled is the time that the schedule named; zero for a person's word.
	Scheduled time.Time
	// Tell is told how far it is; nil discards.
	Tell func(driver.BackupStage)
}

// ErrBusy is a machine that something else is being done to, which a backup must not meet.
var ErrBusy = errors.New("something else is being done to the machine")

// Backup makes a backup of a machine now. Its lock is held only while the backup begins,
// or for a stopped machine until it is over, since nobody may write to its disks then.
func (e *Engine) Backup(ctx context.Context, name string, opt BackupOptions) (driver.BackupReport, error) {
	want, err := e.desired(ctx, name)
	if err != nil {
		return driver.BackupReport{}, err
	}
	if err := backupWanted(want, name); err != nil {
		return driver.BackupReport{}, err
	}
	done, err := e.cfg.Ports.Backups.LockBackups(ctx, name)
	if err != nil {
		return driver.BackupReport{}, err
	}
	defer done()
	report, err := e.backUp(ctx, name, opt)
	// What somebody else is at, or who asked gave up, is no failure of the backup.
	over := err == nil || ctx.Err() == nil && !errors.Is(err, ErrBusy) && !errors.Is(err, filelock.ErrHeld)
	if over {
		err = errors.Join(err, e.noteBackup(ctx, name, want.Machine.Object.Spec.Backup, opt, report, err))
	}
	return report, err
}

func backupWanted(want Desired, name string) error {
	switch {
	case want.Machine == nil:
		return notFound("back up", name)
	case want.Machine.Object.Spec.Backup == nil:
		return &Error{
			Object: "vm/" + name, Op: "back up", Err: ErrProblem, Detail: "its manifest does not say where to",
			Hint: "write spec.backup: {target: FOLDER} into it and apply",
		}
	default:
		return notDeleting("back up", want.Machine)
	}
}

// backUp makes a backup; that of the machine has nobody else.
func (e *Engine) backUp(ctx context.Context, name string, opt BackupOptions) (driver.BackupReport, error) {
	unlock, err := e.lock(ctx, name)
	if err != nil {
		return driver.BackupReport{}, err
	}
	locked := true
	release := func() {
		if locked {
			unlock()
		}
		locked = false
	}
	defer release()
	want, err := e.desired(ctx, name)
	if err != nil {
		return driver.BackupReport{}, err
	}
	if err := backupWanted(want, name); err != nil {
		return driver.BackupReport{}, err
	}
	obs := e.observe(ctx, name, want, driver.DepthFull)
	if in := obs.Intent; in != nil && in.UID == machineUID(want.Machine, &obs) || obs.Freeze != nil {
		what := "its file systems are frozen"
		if in != nil {
			what = strings.ToLower(string(in.Kind)) + " by " + in.Who
		}
		return driver.BackupReport{}, &Error{Object: "vm/" + name, Op: "back up", Err: ErrBusy, Detail: what, Hint: "try again when that is over"}
	}
	pending, err := e.cfg.Ports.Backups.BeginBackup(ctx, want.vm(), obs, backupRequest(want.Machine, opt))
	if err != nil {
		return driver.BackupReport{}, err
	}
	if !pending.NeedsMachine() {
		release()
	}
	return pending.Finish(ctx, opt.Tell)
}

// backupRequest is what a machine's manifest and a person want.
func backupRequest(rec *state.Machine, opt BackupOptions) driver.BackupRequest {
	spec := rec.Object.Spec.Backup
	req := driver.BackupRequest{
		Target: spec.Target, Mode: spec.Mode, Quiesce: spec.Quiesce, RateLimit: spec.RateLimit.Bytes(), Scheduled: opt.Scheduled, Keep: spec.Keep,
	}
	if b := rec.Backup; b != nil && b.Target == spec.Target && !opt.AcceptTarget {
		req.Marker = b.Marker
	}
	if opt.Full {
		req.Why = "it was asked for"
	}
	if s, _, ok := backupSchedule(rec); ok {
		req.Zone = s.Zone()
	}
	return req
}

// noteBackup remembers what came of a backup. What a person asked for and did not get
// they are told; only what the schedule asked for is a condition.
func (e *Engine) noteBackup(ctx context.Context, name string, spec *manifest.Backup, opt BackupOptions, report driver.BackupReport, failed error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.Timing.Lock)
	defer cancel()
	now := e.cfg.Now()
	generation := int64(0)
	if failed == nil || !opt.Scheduled.IsZero() {
		err := e.cfg.Store.Update(ctx, func(tx Tx) error {
			m, err := tx.Machine(name)
			if err != nil || m == nil {
				return err
			}
			generation = m.Generation
			m.Backup = notedBackup(m.Backup, spec.Target, opt, report, failed, now, e.options(Options{}))
			return tx.PutMachine(m)
		})
		if err != nil {
			return &Error{Object: "vm/" + name, Op: "write the record of", Err: err}
		}
	}
	e.journal(ctx, e.backupEvents(name, generation, report, failed))
	return nil
}

// notedBackup is the record of backups after another one.
func notedBackup(before *state.Backup, target string, opt BackupOptions, report driver.BackupReport, failed error, now time.Time, limits Options) *state.Backup {
	b := state.Backup{}
	if before != nil {
		b = *before
	}
	if failed != nil {
		b.Failed, b.FailedAt = failed.Error(), now
		b.Failures++
		b.NotBefore = now.Add(limits.backoff(b.Failures))
		return &b
	}
	run := report.Run
	b = state.Backup{
		Target: target, Marker: report.Marker, Scheduled: b.Scheduled, Run: run.ID, Type: run.Type, At: run.At, Bytes: run.Bytes(),
	}
	// One that was left by the schedule may be completed by a person's word.
	for _, slot := range []time.Time{run.Scheduled, opt.Scheduled} {
		if slot.After(b.Scheduled) {
			b.Scheduled = slot
		}
	}
	return &b
}

func (e *Engine) backupEvents(name string, generation int64, report driver.BackupReport, failed error) []state.Event {
	if failed != nil {
		return []state.Event{e.event(name, generation, state.EventWarning, state.EventBackupFailed, failed.Error())}
	}
	events := []state.Event{e.event(name, generation, state.EventNormal, state.EventBackupMade, BackupWords(report.Run))}
	for _, id := range report.Expired {
		events = append(events, e.event(name, generation, state.EventNormal, state.EventBackupExpired, "backup "+id+" is kept no longer"))
	}
	if report.Warning != "" {
		events = append(events, e.event(name, generation, state.EventWarning, state.EventBackupMade, report.Warning))
	}
	return events
}

// BackupWords say what a run is.
func BackupWords(run driver.BackupRun) string {
	text := fmt.Sprintf("backup %s is made: %s, %s, %s", run.ID, run.Type, run.Consistency, sizeWords(run.Bytes()))
	if run.Why != "" {
		text += "; full since " + run.Why
	}
	return text
}

// sizeWords is a size for people.
func sizeWords(n int64) string {
	size, unit := float64(n)/(1<<10), "KiB"
	for _, next := range []string{"MiB", "GiB", "TiB"} {
		if size < 1<<10 {
			break
		}
		size, unit = size/(1<<10), next
	}
	return fmt.Sprintf("%.1f %s", size, unit)
}

// BackupStatus is how a machine's backups are.
type BackupStatus struct {
	Target string `json:"target"`
	// Run is the last one; Type, At and Size are its own.
	Run  string              `json:"run,omitempty"`
	Type manifest.BackupMode `json:"type,omitempty"`
	At   time.Time           `json:"at,omitzero"`
	Size manifest.Quantity   `json:"size,omitempty"`
	// Next is when the schedule, or a new try, has the next one made.
	Next time.Time `json:"next,omitzero"`
}

func backupStatus(rec *state.Machine, now time.Time) *BackupStatus {
	spec := rec.Object.Spec.Backup
	if spec == nil {
		return nil
	}
	s := &BackupStatus{Target: spec.Target, Next: nextBackup(rec, now)}
	if b := rec.Backup; b != nil {
		s.Run, s.Type, s.At, s.Size = b.Run, b.Type, b.At, manifest.Quantity(b.Bytes)
	}
	return s
}

// backupCondition tells that a scheduled backup could not be made.
func backupCondition(rec *state.Machine, add func(kind, reason, message string)) {
	if rec == nil || rec.Object.Spec.Backup == nil || rec.Backup == nil || rec.Backup.Failed == "" {
		return
	}
	b := rec.Backup
	last := "there is none"
	if !b.At.IsZero() {
		last = "the last one is of " + b.At.UTC().Format(time.RFC3339)
	}
	add(ConditionBackupFailed, "NotMade", fmt.Sprintf("%s; %s; tried %s", b.Failed, last, times(b.Failures, "time")))
}

// backupSchedule is a machine's schedule of backups, and since when it counts, as that of
// snapshots.
func backupSchedule(rec *state.Machine) (s manifest.Schedule, since time.Time, ok bool) {
	want := rec.Object.Spec.Backup
	if want == nil || want.Schedule == "" {
		return s, since, false
	}
	s, err := manifest.ParseSchedule(want.Schedule, want.TimeZone)
	since = rec.Updated
	if b := rec.Backup; b != nil && !b.Scheduled.IsZero() {
		since = b.Scheduled
	}
	return s, since, err == nil
}

// dueBackup is the time of a backup that is to be made now.
func dueBackup(rec *state.Machine, obs *driver.Observed, now time.Time) (slot time.Time, due bool) {
	s, since, ok := backupSchedule(rec)
	if !ok || rec.Deleting != nil || rec.Restore != nil {
		return slot, false
	}
	if b := rec.Backup; b != nil && now.Before(b.NotBefore) {
		return slot, false
	}
	if slot, due = dueSince(s, since, now); !due {
		return slot, false
	}
	switch obs.Presence {
	case driver.Alive:
		return slot, obs.Guest != nil && obs.Intent == nil && obs.Freeze == nil
	case driver.Absent:
		// Of a machine that has not run since the last one, another holds nothing new.
		at := time.Time{}
		if rec.Backup != nil {
			at = rec.Backup.At
		}
		t := lastTermination(rec, obs)
		return slot, t != nil && t.At.After(at) && EffectivePower(rec, now) == manifest.PowerStopped
	case driver.Unresponsive, driver.Unknown:
	}
	return slot, false
}

// nextBackup is when the machine has to be looked at for the sake of its backups; zero
// without a schedule.
func nextBackup(rec *state.Machine, now time.Time) time.Time {
	s, _, ok := backupSchedule(rec)
	if !ok {
		return time.Time{}
	}
	next := s.Next(now)
	if b := rec.Backup; b != nil && now.Before(b.NotBefore) && (next.IsZero() || b.NotBefore.Before(next)) {
		return b.NotBefore
	}
	return next
}
