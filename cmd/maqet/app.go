package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/driver/disk/imagestore"
	"github.com/maqet/maqet/driver/qemu"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/internal/slowfs"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/reconcile"
	"github.com/maqet/maqet/state"
)

// globals are the flags that every command has.
type globals struct {
	stateDir, runDir string
	timeouts         string
	verbose          bool
}

// app builds what commands need of the other rooms and hands it to them. All
// that is shared between commands of one process lives here, in no package.
type app struct {
	env     environment
	globals globals
	// command is the name of the running command, for "who".
	command string
	// logLevel is what is logged without --verbose. Zero is Info; commands that
	// print their own answers log warnings only.
	logLevel slog.Level
	built    *rooms
}

// rooms is everything built from the global flags.
type rooms struct {
	layout     layout.Layout
	timing     timing.Table
	log        *slog.Logger
	locks      *filelock.Manager
	store      *state.Store
	prober     *qemu.Prober
	files      *slowfs.Files
	images     *disk.Images
	imageStore *imagestore.Store
	driver     *qemu.Driver
	// journal is what happened to machines.
	journal *state.Journal
	who     string
	bootID  string
}

// rooms builds the rooms once. It touches no file but the boot id.
func (a *app) rooms() (*rooms, error) {
	if a.built != nil {
		return a.built, nil
	}
	if a.env.home == "" && a.env.uid != 0 && a.globals.stateDir == "" && a.env.getenv("MAQET_STATE_DIR") == "" {
		return nil, usagef("HOME is not set, so there is no place for maqet's state; set HOME, or name a folder with --state-dir")
	}
	table := timing.Default()
	if a.globals.timeouts != "" {
		if err := table.Set(a.globals.timeouts); err != nil {
			return nil, usagef("--%w", err)
		}
	}
	where, err := a.layout()
	if err != nil {
		return nil, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read the host's boot id: %w; /proc must be mounted", err)
	}
	r := &rooms{layout: where, timing: table, log: a.logger(), locks: filelock.New(), bootID: strings.TrimSpace(string(boot))}
	r.who = fmt.Sprintf("%s (pid %d, %s)", a.command, os.Getpid(), a.userName())
	r.store = state.New(state.Config{Path: where.Database(), LockPath: where.DatabaseLock(), Locks: r.locks, Timing: table, Log: r.log})
	r.journal = state.NewJournal(state.JournalConfig{
		Path: where.Events(), Before: where.EventsBefore(), LockPath: where.EventsLock(), Locks: r.locks, Timing: table, Log: r.log,
	})
	r.files = slowfs.New(table.File)
	r.prober = qemu.NewProber(where, table, r.locks)
	r.images = disk.New(disk.Config{Timing: table, Machines: filepath.Dir(where.DiskDir("x")), Log: r.log})
	r.imageStore = imagestore.New(imagestore.Config{Layout: where, Timing: table, Locks: r.locks, Images: r.images, Log: r.log, Who: r.who})
	kinds := disk.Kinds{disk.Made{Images: r.images}, disk.File{Images: r.images}, disk.Device{Images: r.images}, disk.NBD{}}
	r.driver = qemu.New(qemu.Config{
		Layout: where, Timing: table, Locks: r.locks, Prober: r.prober, Images: r.images, Kinds: kinds, Log: r.log, Who: r.who,
		Bus: qemu.FindBus(a.env.getenv, a.env.uid == 0),
	})
	a.built = r
	return r, nil
}

func (a *app) layout() (layout.Layout, error) {
	stateDir, err := absolute(a.globals.stateDir)
	if err != nil {
		return layout.Layout{}, err
	}
	runDir, err := absolute(a.globals.runDir)
	if err != nil {
		return layout.Layout{}, err
	}
	where := layout.Default(a.env.getenv, a.env.home, a.env.uid == 0).With(stateDir, runDir)
	if where.State, err = absolute(where.State); err != nil {
		return layout.Layout{}, err
	}
	where.Run, err = absolute(where.Run)
	return where, err
}

func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return abs, nil
}

func (a *app) logger() *slog.Logger {
	level := a.logLevel
	if a.globals.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(a.env.err, &slog.HandlerOptions{Level: level}))
}

// userName is who asks, for holds and events: the person behind sudo if there
// is one.
func (a *app) userName() string {
	for _, key := range []string{"SUDO_USER", "USER", "LOGNAME"} {
		if name := a.env.getenv(key); name != "" {
			return name
		}
	}
	return fmt.Sprintf("uid %d", a.env.uid)
}

// engine builds the reconciler, which reports each confirmed step to report.
// Commands that change something make the folders first.
func (a *app) engine(report func(reconcile.Event)) (*reconcile.Engine, error) {
	r, err := a.rooms()
	if err != nil {
		return nil, err
	}
	if err := layout.EnsureDirs(r.layout); err != nil {
		return nil, err
	}
	return a.reader(report)
}

// reader builds the reconciler for commands that only look: it makes no folder.
func (a *app) reader(report func(reconcile.Event)) (*reconcile.Engine, error) {
	return a.engineWith(func(c *reconcile.Config) { c.Report = report })
}

// engineWith builds the reconciler with a change of what it works with.
func (a *app) engineWith(change func(*reconcile.Config)) (*reconcile.Engine, error) {
	r, err := a.rooms()
	if err != nil {
		return nil, err
	}
	d := r.driver
	cfg := reconcile.Config{
		Ports: reconcile.Ports{
			Locker: d, Observer: d, Power: d, Agent: d, Records: d, Storage: d, Plugs: d, Snapshots: d, Backups: d, Images: r.imageStore, Overlays: d,
			Inventory: d, Provisioner: d, Copier: d,
		},
		Store: reconcile.StoreOf(r.store), Timing: r.timing, Log: r.log, Who: r.who, BootID: r.bootID, Journal: r.journal,
		Live: reconcile.WatchLock{Locks: r.locks, Layout: r.layout}.Live,
	}
	change(&cfg)
	return reconcile.NewEngine(cfg), nil
}

// close gives back what the rooms hold.
func (a *app) close(ctx context.Context) {
	if a.built == nil {
		return
	}
	if err := a.built.store.Close(); err != nil {
		a.built.log.LogAttrs(ctx, slog.LevelWarn, "closing the database failed", slog.Any("err", err))
	}
}

// hostArch is QEMU's name of this host's architecture.
func hostArch() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	case "386":
		return "i386"
	default:
		return runtime.GOARCH
	}
}
