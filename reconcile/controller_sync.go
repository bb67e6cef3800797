package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/maqet/maqet/manifest"
)

// longestUnread is the longest time between two tries to read the manifests.
const longestUnread = time.Minute

// follow reads the manifests whenever they may have changed. However long that
// takes, and whatever is wrong with them, the machines are supervised.
func (c *Controller) follow(ctx context.Context, first chan<- struct{}) {
	f := &follower{Controller: c}
	changes := c.cfg.Changes
	for read := false; ctx.Err() == nil; read = true {
		next := f.read(ctx)
		if !read {
			close(first)
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case _, open := <-changes:
			if !open {
				changes = nil
			}
		case <-c.again:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// follower is what reading the manifests remembers from one time to the next.
type follower struct {
	*Controller
	// failures counts the times in a row that the manifests could not be read at all.
	failures int
	// missing are the objects that the last complete listing lacked, since when.
	missing string
	since   time.Time
}

// read reads the manifests, takes what is good, and says when to read again.
func (f *follower) read(ctx context.Context) time.Duration {
	set, err := f.cfg.Load(ctx)
	if ctx.Err() != nil {
		return f.cfg.Resync
	}
	var faults manifest.Errors
	if err != nil && !errors.As(err, &faults) || set == nil {
		return f.unread(err)
	}
	next, err := f.take(ctx, set, faults)
	if err != nil && ctx.Err() == nil {
		return f.unread(err)
	}
	f.failures = 0
	return next
}

// unread says that reading failed, and tries again later each time.
func (f *follower) unread(err error) time.Duration {
	if err == nil {
		err = errors.New("nothing was read")
	}
	f.log.Error("the manifests could not be taken; the machines stay as they are", "err", err)
	f.condition(ConditionManifestsIncomplete, "NotTaken", err.Error())
	wait := min(time.Second<<min(f.failures, 10), longestUnread)
	f.failures++
	return wait
}

// take makes what is good of a set the desired state, and has the machines
// looked at that it concerns.
func (f *follower) take(ctx context.Context, set *manifest.Set, faults manifest.Errors) (time.Duration, error) {
	opt := f.cfg.Options
	opt.Prune = false
	report, err := f.taker.Sync(ctx, set, faults, opt)
	if err != nil {
		return 0, err
	}
	f.poke(report)
	next := f.cfg.Resync
	if f.cfg.Options.Prune && set.Complete {
		absent := f.absent(set, report)
		if absent > 0 {
			next = absent
		} else if len(report.Left) > 0 {
			// They were missed for long enough, and are missed now.
			pruned, err := f.taker.Sync(ctx, set, faults, f.cfg.Options)
			if err != nil {
				return 0, err
			}
			f.poke(pruned)
			report.Problems = pruned.Problems
		}
	}
	f.memory.settled()
	f.say(set, faults, report)
	return next, nil
}

// absent is how much longer the objects that are in no manifest have to be
// missed until that counts: a file that is being replaced is gone for a moment.
// It is zero when it counts, or when there is nothing that it could count for.
func (f *follower) absent(set *manifest.Set, report SyncReport) time.Duration {
	now := f.engine.cfg.Now()
	missing := fmt.Sprint(report.Left)
	if !set.Complete {
		missing = ""
	}
	if missing != f.missing {
		f.missing, f.since = missing, now
	}
	if len(report.Left) == 0 || !set.Complete {
		return 0
	}
	return max(f.engine.cfg.Timing.Absence-now.Sub(f.since), 0)
}

func (f *follower) poke(report SyncReport) {
	for _, name := range report.Machines {
		f.queue.Add(name)
	}
}

// say tells what is wrong with the manifests, once for each change of it.
func (f *follower) say(set *manifest.Set, faults manifest.Errors, report SyncReport) {
	var words []string
	for _, e := range faults {
		if !e.Warning {
			words = append(words, e.Error())
		}
	}
	for _, err := range report.Refused {
		words = append(words, err.Error())
	}
	f.mu.Lock()
	news := strings.Join(words, "\n") != strings.Join(f.faults, "\n")
	f.faults, f.synced = words, f.engine.cfg.Now()
	f.mu.Unlock()
	switch {
	case news && len(words) == 0:
		f.log.Info("the manifests are good again")
	case news:
		f.log.Error("manifests are at fault; what was good before is kept", "faults", words)
	}
	reason, message := "", ""
	if !set.Complete {
		reason, message = "NotAllRead", fmt.Sprintf("%s; nothing is pruned until they are mended", times(len(words), "fault"))
	}
	f.condition(ConditionManifestsIncomplete, reason, message)
	reason, message = "", ""
	if len(report.Problems) > 0 {
		reason, message = "Guard", problemWords(report.Problems)
	}
	if f.condition(ConditionPruneRefused, reason, message) && reason != "" {
		f.log.Error("nothing is pruned", "why", message)
	}
}
