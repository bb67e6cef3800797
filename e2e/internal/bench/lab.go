package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/maqet/maqet/e2e/internal/host"
	"github.com/maqet/maqet/internal/layout"
)

// grace is how long an interrupted command has to end by itself.
const grace = 15 * time.Second

// Config is what a lab works with.
type Config struct {
	// Maqet and Rawclient are the built programs.
	Maqet, Rawclient string
	// Guest is the folder of the tiny guest's kernel and initramfs; without it the cases
	// that boot one are left out.
	Guest string
	// Machines and Manifests are how many the big cases have.
	Machines, Manifests int
}

// Lab is the private folder in which everything happens.
type Lab struct {
	Config
	dir   string
	fleet *site
}

// NewLab makes the folder.
func NewLab(cfg Config) (*Lab, error) {
	// Short, since sockets lie below it and their paths end at 107 bytes.
	dir, err := os.MkdirTemp("", "mqb")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the benchmarks: %w", err)
	}
	return &Lab{Config: cfg, dir: dir}, nil
}

// Close kills what is left and removes the folder.
func (l *Lab) Close() error {
	killBelow(l.dir)
	if err := os.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("remove the folder of the benchmarks: %w", err)
	}
	return nil
}

// killBelow kills every QEMU whose pid file lies below a folder.
func killBelow(dir string) { (&host.Host{Run: dir}).KillAll() }

// run runs a program in its own process group, so that Ctrl-C reaches this
// program alone, which then ends what it has started in the right order.
func (l *Lab) run(ctx context.Context, env []string, name string, args ...string) error {
	path := filepath.Join(l.dir, "output")
	// A file, not a pipe: a QEMU that a script leaves behind would keep a pipe open.
	output, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("keep the output of %s: %w", name, err)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	err = cmd.Run()
	if closing := output.Close(); err == nil && closing != nil {
		err = closing
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), brief(args), err, tail(path))
	}
	return nil
}

// brief is the beginning of an argument list that may name thousands of things.
func brief(args []string) string {
	const enough = 8
	if len(args) > enough {
		return strings.Join(args[:enough], " ") + " ..."
	}
	return strings.Join(args, " ")
}

// tail is the end of what a failed program said.
func tail(path string) string {
	const enough = 2000
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	text = bytes.TrimSpace(text)
	return string(text[max(0, len(text)-enough):])
}

// site is one maqet with folders of its own, the manifests for it, and a folder
// for the raw twins of its machines.
type site struct {
	lab    *Lab
	layout layout.Layout
	// manifests is the folder given to -f, raw that of the twins.
	manifests, raw string
	names          []string
}

// site makes the folders of a site.
func (l *Lab) site(name string) (*site, error) {
	root := filepath.Join(l.dir, name)
	s := &site{
		lab:    l,
		layout: layout.Layout{State: filepath.Join(root, "s"), Run: filepath.Join(root, "r")},
		// The twins' folder, too, has two parts, which stand for state and run dir.
		manifests: filepath.Join(root, "vms"), raw: filepath.Join(root, "raw"),
	}
	var failed error
	for _, dir := range []string{s.manifests, s.raw} {
		failed = errors.Join(failed, os.MkdirAll(dir, 0o700))
	}
	if failed != nil {
		return nil, fmt.Errorf("make the folders of %s: %w", name, failed)
	}
	return s, nil
}

func (s *site) env() []string {
	return []string{"MAQET_STATE_DIR=" + s.layout.State, "MAQET_RUN_DIR=" + s.layout.Run, "NO_COLOR=1", "TERM=dumb"}
}

// maqet runs a command of maqet at this site; it has to succeed.
func (s *site) maqet(ctx context.Context, args ...string) error {
	return s.lab.run(ctx, s.env(), s.lab.Maqet, args...)
}

// output is what a command of maqet at this site prints.
func (s *site) output(ctx context.Context, args ...string) ([]byte, error) {
	if err := s.maqet(ctx, args...); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(s.lab.dir, "output"))
}

// rawclient runs the yardstick.
func (s *site) rawclient(ctx context.Context, args ...string) error {
	return s.lab.run(ctx, nil, s.lab.Rawclient, args...)
}

// remove takes all machines of the site away, with their disks and records.
func (s *site) remove(ctx context.Context) error {
	return s.maqet(ctx, append([]string{"delete", "--force", "--delete-disks"}, s.names...)...)
}

// close kills the machines of the site and of their twins.
func (s *site) close(context.Context) error {
	killBelow(filepath.Dir(s.raw))
	return nil
}

// owner lets two folders hold the same machines.
const owner = "bench"

// apply is what people type.
func (s *site) apply(ctx context.Context) error {
	return s.maqet(ctx, "apply", "-f", s.manifests, "--owner", owner)
}

// stop stops all machines of the site. It leaves a hold, which ends when the
// machine is deleted or its spec changes.
func (s *site) stop(ctx context.Context) error {
	return s.maqet(ctx, "stop", "--force", "--all")
}

// check fails unless every machine of the site runs, whatever maqet said.
func (s *site) check(ctx context.Context) error {
	return s.rawclient(ctx, append([]string{"status"}, s.sockets()...)...)
}

// sockets are those for short visits of the site's machines.
func (s *site) sockets() []string {
	paths := make([]string, len(s.names))
	for i, name := range s.names {
		paths[i] = s.layout.CLISocket(name)
	}
	return paths
}
