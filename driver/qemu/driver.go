package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

// Config is what a Driver works with.
type Config struct {
	// Layout names every file.
	Layout layout.Layout
	// Timing limits every wait.
	Timing timing.Table
	// Locks are shared by everything in this process that locks.
	Locks *filelock.Manager
	// Prober knows what binaries can do.
	Prober *Prober
	// Images works on the image files of stopped machines.
	Images *disk.Images
	// Kinds are the kinds of storage that disks may have.
	Kinds disk.Kinds
	// Log gets what changed; nil discards.
	Log *slog.Logger
	// Who is written into records that name who began something, such as "apply
	// (pid 4711, root)".
	Who string
	// Bus is where systemd is asked for scopes; the zero value asks nobody.
	Bus Bus
}

// Driver starts, adopts, observes and changes the QEMU processes of one host.
// Its methods may be called from any number of goroutines.
type Driver struct {
	layout layout.Layout
	timing timing.Table
	locks  *filelock.Manager
	prober *Prober
	images *disk.Images
	kinds  disk.Kinds
	log    *slog.Logger
	who    string
	bus    Bus

	proc     procfs
	scanner  *scanner
	children *children
	// helpers are the places where QEMU's bridge helper may be.
	helpers []string
	now     func() time.Time
	// ownRun remembers that the run dir was found to belong to the state dir.
	ownRun atomic.Bool
}

// New makes a driver. It looks at nothing yet and starts nothing.
func New(cfg Config) *Driver {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &Driver{
		layout: cfg.Layout, timing: cfg.Timing, locks: cfg.Locks, prober: cfg.Prober, images: cfg.Images, kinds: cfg.Kinds,
		log: log, who: cfg.Who, bus: cfg.Bus, now: time.Now,
		proc: procfs{"/proc"}, children: newChildren(), helpers: bridgeHelpers(),
	}
	d.scanner = &scanner{proc: d.proc}
	return d
}

// Lock waits for the right to act on a machine, which one at a time has over all
// processes. It waits until ctx ends, or for the time that the table gives to locks
// when ctx has no deadline. The error names the holder.
func (d *Driver) Lock(ctx context.Context, name string) (unlock func(), err error) {
	const op = "lock"
	if err := checkName(d.layout, name); err != nil {
		return nil, fail(op, name, err, "")
	}
	if err := layout.EnsureDirs(d.layout); err != nil {
		return nil, fail(op, name, err, "")
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.timing.Lock)
		defer cancel()
	}
	lock, err := d.locks.Lock(ctx, d.layout.MachineLock(name))
	if err != nil {
		return nil, fail(op, name, err, "")
	}
	return func() { _ = lock.Unlock() }, nil // the kernel frees it all the same
}

// Known are the names of the machines that have a run dir: those that run, and those
// whose last process left its records.
func (d *Driver) Known(ctx context.Context) ([]string, error) {
	if err := d.owned(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(d.layout.Run)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the machines of the run dir: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && checkName(d.layout, e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, ctx.Err()
}

// checkName refuses what is no name of a machine, and the name that stands for
// something else in the run dir.
func checkName(l layout.Layout, name string) error {
	if name == filepath.Base(l.LockDir()) {
		return fmt.Errorf("%q is taken in the run dir: give the machine another name", name)
	}
	return manifest.ValidName(name)
}

// owned refuses a run dir that belongs to another state dir: the machines in it are
// others, whatever they are called. Folders that are not there yet are nobody's.
func (d *Driver) owned() error {
	if d.ownRun.Load() {
		return nil
	}
	id, err := readMark(d.layout.StateID())
	if err != nil {
		return err
	}
	owner, err := readMark(d.layout.RunOwner())
	if err != nil {
		return err
	}
	if owner != "" && owner != id {
		return &layout.Error{
			Path: d.layout.Run, Err: layout.ErrForeignRunDir,
			Hint: "choose another with --run-dir or MAQET_RUN_DIR for the state dir " + d.layout.State,
		}
	}
	d.ownRun.Store(owner != "")
	return nil
}

// readMark reads the id in the first line of a file; empty when there is no file.
func readMark(path string) (string, error) {
	text, err := os.ReadFile(path) //nolint:gosec // a file of the layout
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	id, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(id), nil
}
