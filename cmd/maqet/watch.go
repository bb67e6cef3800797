package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
	"github.com/maqet/maqet/reconcile/folder"
)

// watchFlags are the flags of watch.
type watchFlags struct {
	apply       applyFlags
	stopGuests  bool
	maxStarting int
}

func newWatch(a *app) *cobra.Command {
	var flags watchFlags
	cmd := &cobra.Command{
		Use:   "watch PATH...",
		Short: "Keep the host as the manifests say, until told to end",
		Long: `Keep the host as the manifests say: apply every change of the files, start again
what ends by its restart policy, and correct what somebody's hand changed. Machines
that were applied by hand are supervised too.

A file that breaks changes nothing: its machines stay as they were last applied,
and "maqet get" says so. A folder that vanishes or cannot be read stops nobody.

On SIGTERM the guests run on, and the next watch, or any other command, finds
them again; with --stop-guests all are asked to power off first, each as its
spec.shutdown says, and watch ends when the last one has. SIGHUP looks at
everything again. Under systemd it says when it is ready and how it is, and keeps
the watchdog fed.`,
		Example: `  maqet watch /etc/maqet/vms
  maqet watch vms/ --prune --allow-restart
  maqet watch vms/ --stop-guests`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("maqet watch needs at least one file or folder of manifests")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			collectSoon()
			if err := flags.apply.check(); err != nil {
				return err
			}
			if flags.maxStarting < 1 {
				return usagef("--max-starting %d: at least one machine must be allowed to start", flags.maxStarting)
			}
			return runWatch(cmd.Context(), a, args, flags)
		},
	}
	flags.apply.addPermissions(cmd)
	cmd.Flags().BoolVar(&flags.stopGuests, "stop-guests", false, "when told to end, ask the guests to power off and wait for them")
	cmd.Flags().IntVar(&flags.maxStarting, "max-starting", 4, "how many machines may be starting at once")
	return cmd
}

// A transaction writes to the database a few times within a millisecond or two,
// which is one change of it.
const (
	recordsQuiet = 10 * time.Millisecond
	recordsDelay = 100 * time.Millisecond
)

// watch is one running watch.
type watch struct {
	app        *app
	rooms      *rooms
	engine     *reconcile.Engine
	controller *reconcile.Controller
	folder     *folder.Watcher
	// records tells that somebody, perhaps another process, wrote to the database.
	records *folder.Watcher
	systemd *systemd
	roots   []string
	log     *slog.Logger
}

func runWatch(ctx context.Context, a *app, args []string, flags watchFlags) error {
	w, release, err := newWatching(ctx, a, args, flags)
	if err != nil {
		return err
	}
	defer func() {
		if err := release(); err != nil {
			w.log.LogAttrs(ctx, slog.LevelWarn, "giving up the watch's lock failed", slog.Any("err", err))
		}
	}()
	err = w.run(ctx)
	if ctx.Err() == nil {
		return err
	}
	w.systemd.stopping()
	if !flags.stopGuests {
		w.log.LogAttrs(ctx, slog.LevelInfo, "watch ends; the guests run on")
		return nil
	}
	w.log.LogAttrs(ctx, slog.LevelInfo, "watch ends; the guests are asked to power off first")
	return w.stopGuests(context.WithoutCancel(ctx))
}

// newWatching builds a watch and claims the state dir for it.
func newWatching(ctx context.Context, a *app, args []string, flags watchFlags) (*watch, func() error, error) {
	roots := make([]string, 0, len(args))
	for _, arg := range args {
		if arg == "-" {
			return nil, nil, usagef("watch -: standard input cannot be watched; name a file or folder")
		}
		root, err := filepath.Abs(arg)
		if err != nil {
			return nil, nil, fmt.Errorf("watch %s: %w", arg, err)
		}
		roots = append(roots, root)
	}
	a.logLevel = slog.LevelInfo
	r, err := a.rooms()
	if err != nil {
		return nil, nil, err
	}
	if err := layout.EnsureDirs(r.layout); err != nil {
		return nil, nil, err
	}
	w := &watch{app: a, rooms: r, roots: roots, log: r.log, systemd: newSystemd(a.env.getenv, r.log)}
	if _, err := flags.apply.absence(roots); err != nil {
		return nil, nil, err
	}
	opt := flags.apply.options(roots)
	release, err := w.claim(ctx, opt.Owner)
	if err != nil {
		return nil, nil, err
	}
	if err := w.build(opt, flags); err != nil {
		return nil, nil, errors.Join(err, release())
	}
	return w, release, nil
}

func (w *watch) claim(ctx context.Context, owner string) (func() error, error) {
	lock := reconcile.WatchLock{Locks: w.rooms.locks, Layout: w.rooms.layout}
	release, err := lock.Claim(ctx, reconcile.LiveWatch{PID: os.Getpid(), Owner: owner, Roots: w.roots, Since: time.Now()})
	if held, ok := errors.AsType[*filelock.HeldError](err); ok {
		return nil, fmt.Errorf("another watch keeps %s (pid %d); end it first, or choose another --state-dir and --run-dir: %w",
			w.rooms.layout.State, held.PID, filelock.ErrHeld)
	}
	return release, err
}

func (w *watch) build(opt reconcile.ApplyOptions, flags watchFlags) error {
	var err error
	if w.engine, err = w.app.engineWith(func(c *reconcile.Config) { c.Parallel = flags.maxStarting }); err != nil {
		return err
	}
	if w.folder, err = folder.New(folder.Options{Paths: w.roots, Log: w.log}); err != nil {
		return err
	}
	w.records, err = folder.New(folder.Options{
		Paths: []string{w.rooms.layout.Database()}, Debounce: recordsQuiet, MaxDelay: recordsDelay, Log: w.log.With(slog.String("of", "the records")),
	})
	if err != nil {
		return err
	}
	w.controller = reconcile.NewController(reconcile.ControllerConfig{
		Engine: w.engine, Load: w.load, Changes: w.folder.Changes(), Records: w.records.Changes(), Watcher: w.rooms.driver,
		Options: opt, Status: w.systemd.status, Log: w.log,
	})
	return nil
}

// load lists the manifests. Faults come with what was valid.
func (w *watch) load(ctx context.Context) (*manifest.Set, error) {
	files := fileFlags{paths: w.roots}
	return files.load(ctx, w.app)
}

// run runs until ctx ends or something that is needed fails.
func (w *watch) run(ctx context.Context) error {
	w.log.LogAttrs(ctx, slog.LevelInfo, "watch begins",
		slog.Any("paths", w.roots), slog.String("state", w.rooms.layout.State), slog.Int("pid", os.Getpid()))
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	if w.app.env.outlive != nil {
		w.app.env.outlive()
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return ended(ctx, w.folder.Run(ctx)) })
	group.Go(func() error { return ended(ctx, w.records.Run(ctx)) })
	group.Go(func() error { return ended(ctx, w.controller.Run(ctx)) })
	group.Go(func() error { return ended(ctx, w.systemd.feed(ctx, w.controller.Alive)) })
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hangups:
				w.log.LogAttrs(ctx, slog.LevelInfo, "told to look again")
				w.systemd.reloading()
				w.controller.LookAgain()
			}
		}
	})
	return group.Wait()
}

// ended drops the error of something that ended because it was told to.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// stopGuests asks every guest to power off, and waits. Their manifests still
// say what they should be, so the next watch starts them again.
func (w *watch) stopGuests(ctx context.Context) error {
	results, err := w.engine.StopAll(ctx, reconcile.Options{})
	for _, r := range results {
		if r.Err != nil {
			err = errors.Join(err, r.Err)
		}
	}
	if err == nil {
		w.log.LogAttrs(ctx, slog.LevelInfo, "the guests have ended", slog.Int("machines", len(results)))
	}
	return err
}
