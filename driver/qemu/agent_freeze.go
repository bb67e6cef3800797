package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qga"
)

// ErrFreezeRanOut is wrapped when file systems had to be thawed before their time:
// what was done meanwhile may not have found them frozen.
var ErrFreezeRanOut = errors.New("the file systems were thawed at the deadline of the freeze")

// Frozen is a guest whose file systems are frozen. It holds the agent's lock until it
// is thawed.
type Frozen struct {
	// Count is how many file systems the agent froze; 0 when there is none that can be.
	Count int
	// Mountpoints are those on disks that the agent knew of just before. Some of them may
	// be of kinds that cannot be frozen, or show one file system twice: then Count is less.
	Mountpoints []string

	driver *Driver
	name   string
	marker driver.Freeze
	timer  *time.Timer

	mu     sync.Mutex
	conn   *qga.Conn
	leave  func()
	over   bool
	ranOut bool
}

// Freeze freezes the file systems of a guest, and returns when they are: until Thaw,
// or for as long as lasts, when they are thawed in any case. A marker in the run dir
// tells of it from before until after, so that somebody else thaws them when this
// process dies in between (see [Driver.Thaw]).
//
// When the guest cannot be frozen, it is thawed before the error is returned.
func (d *Driver) Freeze(ctx context.Context, name string, lasts time.Duration) (*Frozen, error) {
	const op = "freeze the file systems of"
	if err := d.agentThere(ctx, name); err != nil {
		return nil, asOp(op, name, err)
	}
	leave, err := d.enterAgent(ctx, name)
	if err != nil {
		return nil, fail(op, name, err, "")
	}
	f := &Frozen{driver: d, name: name, leave: leave}
	if err := f.begin(ctx, lasts); err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		return nil, fail(op, name, errors.Join(err, f.end(ctx)), "")
	}
	// Nothing is logged before they are thawed: a log may be stuck, as on a terminal that
	// was stopped, and one that has no reader any more ends the process.
	return f, nil
}

// begin writes the marker and freezes. The agent's lock is held.
func (f *Frozen) begin(ctx context.Context, lasts time.Duration) error {
	d := f.driver
	launched, err := d.readLaunched(f.name)
	if err != nil {
		return err
	}
	if launched == nil {
		return ErrNotRunning
	}
	// An agent that is never silent, and never done, is not waited for any longer.
	soon, enough := context.WithTimeout(ctx, d.timing.Freeze)
	defer enough()
	if f.conn, err = f.dial(soon); err != nil {
		return err
	}
	// Somebody died here before, or froze by hand: two freezes in one another cannot be
	// told apart when they are thawed.
	if _, err := f.conn.Thaw(soon); err != nil {
		return err
	}
	if f.Mountpoints, err = f.conn.Mountpoints(soon); err != nil && !qga.IsUnsupported(err) {
		return err
	}
	now := d.now()
	f.marker = driver.Freeze{UID: launched.UID, Since: now.UTC(), Deadline: now.Add(lasts).UTC(), Who: d.who, Mountpoints: f.Mountpoints}
	if err := d.writeRunFile(f.name, d.layout.Frozen(f.name), f.marker); err != nil {
		return err
	}
	// Writing out what is cached may take long, and must not be left half-way by us: an
	// agent that is told to freeze does so, whoever waits.
	calm, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.timing.Freeze)
	defer cancel()
	f.conn.Allow(d.timing.Freeze)
	if f.Count, err = f.conn.Freeze(calm); err != nil {
		return err
	}
	f.conn.Allow(d.timing.Agent)
	f.mu.Lock() // a short deadline may be over before the timer is noted
	defer f.mu.Unlock()
	f.timer = time.AfterFunc(lasts, func() { f.expire(context.WithoutCancel(ctx)) })
	return nil
}

func (f *Frozen) dial(ctx context.Context) (*qga.Conn, error) {
	d := f.driver
	return qga.Dial(ctx, d.layout.AgentSocket(f.name), qga.Options{Answer: d.timing.Agent})
}

// expire thaws at the deadline.
func (f *Frozen) expire(ctx context.Context) {
	f.mu.Lock()
	expired := !f.over
	if expired {
		f.ranOut = true
		_ = f.end(ctx) // it is in the marker, and the next pass tries again
	}
	f.mu.Unlock()
	if expired {
		f.driver.log.LogAttrs(ctx, slog.LevelWarn, "the freeze of file systems ran out", slog.String("vm", f.name))
	}
}

// Thaw lets the guest's file systems go on and returns when the agent says that they
// do. It is seen to its end whatever becomes of ctx. An error means that they may be
// frozen still, and that the next pass over the machine thaws them, or that they were
// thawed too early ([ErrFreezeRanOut]). A second call does nothing.
func (f *Frozen) Thaw(ctx context.Context) error {
	const op = "thaw the file systems of"
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ranOut {
		return fail(op, f.name, ErrFreezeRanOut, "allow the freeze more time")
	}
	over := f.over
	err := f.end(ctx)
	if err == nil && !over {
		f.driver.log.LogAttrs(ctx, slog.LevelInfo, "file systems thawed", slog.String("vm", f.name), slog.Int("count", f.Count),
			slog.Duration("frozen", f.driver.now().Sub(f.marker.Since)))
	}
	return fail(op, f.name, err, "maqet apply tries again")
}

// end thaws, removes the marker and lets the agent's lock go.
func (f *Frozen) end(ctx context.Context) error {
	if f.over {
		return nil
	}
	f.over = true
	if f.timer != nil {
		f.timer.Stop()
	}
	defer f.leave()
	defer func() {
		if f.conn != nil {
			_ = f.conn.Close() // nothing is asked any more
		}
	}()
	if f.marker.UID == "" {
		return nil // nothing was frozen
	}
	d := f.driver
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.timing.Freeze)
	defer cancel()
	err := thaw(ctx, f.conn)
	if errors.Is(err, qga.ErrClosed) {
		// A new connection comes into step behind whatever the agent is busy with.
		err = f.again(ctx)
	}
	return d.thawed(f.name, f.marker, err)
}

// again thaws on a new connection.
func (f *Frozen) again(ctx context.Context) error {
	conn, err := f.dial(ctx)
	if err != nil {
		return err
	}
	f.conn = conn
	return thaw(ctx, conn)
}

// thaw thaws, and asks whether that is so.
func thaw(ctx context.Context, c *qga.Conn) error {
	if _, err := c.Thaw(ctx); err != nil {
		return err
	}
	frozen, err := c.Frozen(ctx)
	if err == nil && frozen {
		err = errors.New("the guest agent says that they are still frozen")
	}
	return err
}

// thawed removes the marker, or notes in it why thawing failed. The agent's lock is held.
func (d *Driver) thawed(name string, marker driver.Freeze, cause error) error {
	path := d.layout.Frozen(name)
	if cause == nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	marker.Failed = cause.Error()
	return errors.Join(cause, d.writeRunFile(name, path, marker))
}

// Thaw ends a freeze that was left behind, by a maqet that died or could not reach the
// agent. It waits for whoever visits the agent: one that is still about to thaw does it.
// A guest without the marker is left alone.
func (d *Driver) Thaw(ctx context.Context, name string) error {
	const op = "thaw the file systems of"
	if err := d.usable(name); err != nil {
		return fail(op, name, err, "")
	}
	leave, err := d.enterAgent(ctx, name)
	if err != nil {
		return fail(op, name, err, "")
	}
	defer leave()
	marker := d.readFrozen(name)
	if marker == nil {
		return nil
	}
	err = d.agentThere(ctx, name)
	if err == nil {
		var c *qga.Conn
		if c, err = (&Frozen{driver: d, name: name}).dial(ctx); err == nil {
			err = thaw(ctx, c)
			_ = c.Close() // everything asked was answered, or err says why not
		}
	}
	if err := d.thawed(name, *marker, err); err != nil {
		return asOp(op, name, fail(op, name, err, "maqet apply tries again"))
	}
	d.log.LogAttrs(ctx, slog.LevelWarn, "file systems thawed that were left frozen", slog.String("vm", name), slog.String("who", marker.Who))
	return nil
}

// readFrozen reads the marker of a freeze; nil when there is none. One that cannot be
// read stands for a freeze all the same.
func (d *Driver) readFrozen(name string) *driver.Freeze {
	marker, err := readRecordFile[driver.Freeze](d.layout.Frozen(name), runHint)
	if err != nil {
		return &driver.Freeze{Who: fmt.Sprintf("unknown (%v)", err)}
	}
	return marker
}

// frozen is the freeze of the running process of that uuid; nil when there is none.
func (d *Driver) frozen(ctx context.Context, name, uid string) *driver.Freeze {
	marker := d.readFrozen(name)
	if marker == nil || marker.UID != "" && !strings.EqualFold(marker.UID, uid) {
		return nil
	}
	lock, err := d.locks.TryLock(d.layout.AgentLock(name))
	if err != nil {
		marker.Held = true
		return marker
	}
	if err := lock.Unlock(); err != nil {
		d.log.WarnContext(ctx, "letting the agent's lock go failed", "vm", name, "err", err)
	}
	// Whoever had the lock until just now may have thawed.
	if d.readFrozen(name) == nil {
		return nil
	}
	return marker
}

// FrozenMachines are the machines that a freeze is marked of.
func (d *Driver) FrozenMachines(ctx context.Context) ([]string, error) {
	names, err := d.Known(ctx)
	if err != nil {
		return nil, err
	}
	var frozen []string
	for _, name := range names {
		if _, err := os.Lstat(d.layout.Frozen(name)); err == nil {
			frozen = append(frozen, name)
		}
	}
	return frozen, nil
}
