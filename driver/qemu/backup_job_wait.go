package qemu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
)

// ErrCopyLost is wrapped when the jobs of a copy are gone before their end was seen:
// QEMU has ended, or somebody dismissed them.
var ErrCopyLost = errors.New("the jobs that copied the disks are gone")

// progress asks how far a copy is.
func (p *copier) progress(ctx context.Context, name string, made driver.Copy) (driver.CopyProgress, error) {
	var jobs []driver.Job
	err := p.visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		return c.Do(ctx, "query-jobs", nil, &jobs)
	})
	if err != nil {
		return driver.CopyProgress{}, err
	}
	all := driver.CopyProgress{Over: true}
	for _, d := range made.Disks {
		i := slices.IndexFunc(jobs, func(j driver.Job) bool { return j.ID == d.Job })
		if i < 0 {
			all.Missing = append(all.Missing, d.Job)
			continue
		}
		j := jobs[i]
		all.Done, all.Total = all.Done+j.Current, all.Total+j.Total
		if j.Status != jobConcluded {
			all.Over, all.Going = false, append(all.Going, j.ID)
		}
		if j.Error != "" && all.Failed == nil {
			all.Failed = p.jobFailed(d, &j)
		}
	}
	return all, nil
}

// wait returns when all jobs of a copy are over, or when one has failed. Tell is told how
// far it is, from time to time.
func (p *copier) wait(ctx context.Context, name string, made driver.Copy, tell func(driver.CopyProgress)) error {
	going := len(made.Disks)
	for {
		now, err := p.progress(ctx, name, made)
		switch {
		case errors.Is(err, ErrNotRunning):
			return fmt.Errorf("%w: %w", ErrCopyLost, cause(err))
		case err != nil && !errors.Is(err, driver.ErrUnresponsive):
			return err
		case err == nil && len(now.Missing) > 0:
			return fmt.Errorf("%w: QEMU does not know %s", ErrCopyLost, strings.Join(now.Missing, ", "))
		case err == nil:
			if tell != nil {
				tell(now)
			}
			if now.Failed != nil || now.Over {
				return now.Failed // the others of a copy that is incomplete are of no use
			}
			if made.RateLimit > 0 && len(now.Going) != going {
				going = len(now.Going)
				p.speedUp(ctx, name, now.Going, rateOfEach(made.RateLimit, going))
			}
		}
		// Whoever looks on wants to see it move; the end comes as an event.
		waiting, cancel := context.WithTimeout(ctx, p.timing.Look)
		err = p.await(waiting, name, driver.Awaited{Job: true, Exit: true})
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && waiting.Err() == nil {
			return err
		}
	}
}

// speedUp lets jobs have the speed of those that are over.
func (p *copier) speedUp(ctx context.Context, name string, jobs []string, speed int64) {
	err := p.visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		var failed error
		for _, job := range jobs {
			failed = errors.Join(failed, c.Do(ctx, "block-job-set-speed", map[string]any{"device": job, "speed": speed}, nil))
		}
		return failed
	})
	if err != nil { // one may be over by now
		p.log.DebugContext(ctx, "setting the speed of a copy failed", "vm", name, "err", err)
	}
}

// finish has QEMU close the files of a copy whose jobs are over, and returns the error
// of a job that failed.
func (p *copier) finish(ctx context.Context, name string, made driver.Copy) error {
	return p.visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		var failed error
		for _, d := range made.Disks {
			job, err := findJob(ctx, c, d.Job)
			switch {
			case err != nil:
				return err
			case job == nil:
				failed = errors.Join(failed, fmt.Errorf("%w: QEMU does not know %s", ErrCopyLost, d.Job))
				continue
			case job.Status != jobConcluded:
				return fmt.Errorf("QEMU's job %s is %s", d.Job, job.Status)
			case job.Error != "":
				failed = errors.Join(failed, p.jobFailed(d, job))
			}
			if err := dismiss(ctx, c, d.Job); err != nil {
				return err
			}
		}
		nodes, err := namedNodes(ctx, c)
		if err != nil {
			return err
		}
		for _, d := range made.Disks {
			if _, there := nodes[d.Node]; !there {
				continue
			}
			// Closing writes out what QEMU holds back of the file.
			if err := c.Do(ctx, "blockdev-del", map[string]any{"node-name": d.Node}, nil); err != nil {
				return err
			}
		}
		return failed
	})
}

// jobFailed is the error of a job, with the room that there is where that was lacking.
func (p *copier) jobFailed(d driver.CopyMade, job *driver.Job) error {
	err := error(&JobError{ID: job.ID, Type: job.Type, Reason: job.Error})
	if strings.Contains(job.Error, "No space left on device") {
		err = fmt.Errorf("%w; %s", err, p.images.FreeWords(d.Path))
	}
	return fmt.Errorf("disk %s: %w", d.Name, err)
}
