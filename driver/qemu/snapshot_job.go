package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// JobError is a job of QEMU that failed.
type JobError struct {
	// ID and Type are the job's.
	ID, Type string
	// Reason is QEMU's sentence.
	Reason string
}

// Error is "QEMU's job ID (TYPE) failed: reason".
func (e *JobError) Error() string {
	return "QEMU's job " + e.ID + " (" + e.Type + ") failed: " + e.Reason
}

// jobConcluded is the status of a job that is over and not dismissed.
const jobConcluded = "concluded"

// begin starts the job that saves memory and disks.
func (s *snapshots) begin(ctx context.Context, vm *manifest.VirtualMachine, draft driver.SnapshotRecord, job string) error {
	name, begun := vm.Metadata.Name, false
	err := s.visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		if err := freeJob(ctx, c, job); err != nil {
			return err
		}
		var err error
		begun, draft.Paused, err = s.submit(ctx, c, job, qmp.NewCall("snapshot-save", map[string]any{
			"job-id": job, "tag": draft.Tag, "vmstate": vmstateDisk(vm, draft.Disks), "devices": draft.Disks,
		}, nil))
		return err
	})
	if draft.Paused != nil {
		// Only who listens just then hears of it.
		if noted := s.writeDraft(name, draft); noted != nil {
			s.log.WarnContext(ctx, "how long the guest stood still is not remembered", "vm", name, "tag", draft.Tag, "err", noted)
		}
	}
	var refused *qmp.Error
	switch {
	case err == nil || begun:
		s.log.InfoContext(ctx, "snapshot begun", "vm", name, "tag", draft.Tag, "job", job)
		return nil
	case errors.As(err, &refused) || errors.Is(err, ErrSnapshotRunning):
		return errors.Join(err, s.dropDraft(name, draft.Tag))
	default:
		// QEMU may still do it. The draft tells the next look what it is.
		return err
	}
}

// submit sends the command that begins a job and tells whether QEMU has begun it.
//
// QEMU 7.2 does the whole work of saving and loading memory in its main loop. It
// reports at once that the job runs, but answers the command, and every other one of
// any client, only when the job is over. So what proves the beginning is either the
// answer or that event, and a long job outlives the wait for an answer.
//
// Paused is what the events show of the guest standing still meanwhile; its end is
// zero when the wait was over before the job.
func (s *snapshots) submit(ctx context.Context, c *qmp.Conn, job string, call *qmp.Call) (begun bool, paused *driver.Paused, err error) {
	events := c.Subscribe()
	defer events.Close()
	if err := c.Send(ctx, call); err != nil {
		return false, nil, err
	}
	wait, cancel := s.answer(ctx)
	defer cancel()
	err = call.Wait(wait)
	saw, paused := sawJob(events, job)
	return err == nil || saw, paused, err
}

// answer limits the wait for the answer to one command.
func (s *snapshots) answer(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.timing.Query <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, s.timing.Query)
}

// freeJob makes a job's id usable: a job that is over and that nobody dismissed
// blocks it.
func freeJob(ctx context.Context, c *qmp.Conn, id string) error {
	job, err := findJob(ctx, c, id)
	switch {
	case err != nil || job == nil:
		return err
	case job.Status != jobConcluded:
		return fmt.Errorf("%w: QEMU's job %s is %s", ErrSnapshotRunning, id, job.Status)
	default:
		return dismiss(ctx, c, id)
	}
}

// findJob asks for a job; nil when QEMU knows none of that id.
func findJob(ctx context.Context, c *qmp.Conn, id string) (*driver.Job, error) {
	var jobs []driver.Job
	if err := c.Do(ctx, "query-jobs", nil, &jobs); err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(jobs, func(j driver.Job) bool { return j.ID == id }); i >= 0 {
		return &jobs[i], nil
	}
	return nil, nil //nolint:nilnil // no such job is an answer of its own
}

func dismiss(ctx context.Context, c *qmp.Conn, id string) error {
	return c.Do(ctx, "job-dismiss", map[string]any{"id": id}, nil)
}

// sawJob tells whether an event that has come says that the job was begun, and from
// when to when the events say that the guest stood still.
func sawJob(events *qmp.Subscription, id string) (begun bool, paused *driver.Paused) {
	for {
		select {
		case e, open := <-events.C():
			if !open {
				return begun, paused
			}
			var change struct{ ID, Status string }
			if e.Name == "JOB_STATUS_CHANGE" && json.Unmarshal(e.Data, &change) == nil && change.ID == id && change.Status == "running" {
				begun = true
			}
			if e.Name == "STOP" && paused == nil {
				paused = &driver.Paused{From: e.Timestamp.UTC()}
			}
			if e.Name == "RESUME" && paused != nil && paused.To.IsZero() {
				paused.To = e.Timestamp.UTC()
			}
		default:
			return begun, paused
		}
	}
}

// vmstateDisk is the disk that memory is saved in: the first that maqet itself
// made, so that a file of the user's does not grow by the guest's memory, and
// otherwise the first.
func vmstateDisk(vm *manifest.VirtualMachine, disks []string) string {
	for _, name := range disks {
		if slices.ContainsFunc(vm.Spec.Disks, func(d manifest.Disk) bool { return d.Name == name && d.Size > 0 }) {
			return name
		}
	}
	return disks[0]
}
