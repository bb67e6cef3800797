package host

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Watch is one running `maqet watch`.
type Watch struct {
	cmd     *exec.Cmd
	printed printed
	ended   chan struct{}
	err     error
}

// printed is what a process has printed so far.
type printed struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.Write(b)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.String()
}

// Watch starts `maqet watch` with the given arguments and returns once it has
// begun. It is killed at the end of the test, before the QEMUs are.
func (h *Host) Watch(t testing.TB, args ...string) *Watch {
	t.Helper()
	return h.WatchCommand(t, h.Command(append([]string{"watch"}, args...)...))
}

// WatchCommand starts a command that is a watch, such as one of another build.
func (h *Host) WatchCommand(t testing.TB, cmd *exec.Cmd) *Watch {
	t.Helper()
	w := Launch(t, cmd)
	if !Eventually(Settle, func() bool { return strings.Contains(w.Log(), "watch begins") || w.Over() }) || w.Over() {
		t.Fatalf("the watch did not begin:\n%s", w.Log())
	}
	return w
}

// Launch starts a command in the background and sees to it that it ends with the test.
func Launch(t testing.TB, cmd *exec.Cmd) *Watch {
	t.Helper()
	w := &Watch{cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &w.printed, &w.printed
	// Pipes are not waited for: a QEMU must not keep a watch from having ended.
	cmd.WaitDelay = Settle
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", strings.Join(cmd.Args, " "), err)
	}
	go func() {
		defer close(w.ended)
		w.err = cmd.Wait()
	}()
	t.Cleanup(func() {
		w.Kill()
		if t.Failed() {
			t.Logf("%s printed:\n%s", strings.Join(cmd.Args, " "), w.Log())
		}
	})
	return w
}

// PID is the watch's process.
func (w *Watch) PID() int { return w.cmd.Process.Pid }

// Log is what it has printed so far.
func (w *Watch) Log() string { return w.printed.String() }

// Over tells that it has ended.
func (w *Watch) Over() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

// Signal sends it a signal.
func (w *Watch) Signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := w.cmd.Process.Signal(s); err != nil {
		t.Fatalf("signal %s to the watch: %v", s, err)
	}
}

// Kill ends it as kill -9 does, and waits until it is gone.
func (w *Watch) Kill() {
	// It may have ended already.
	_ = w.cmd.Process.Kill()
	<-w.ended
}

// End tells it to end, and returns its exit code.
func (w *Watch) End(t testing.TB) int {
	t.Helper()
	w.Signal(t, syscall.SIGTERM)
	return w.Wait(t)
}

// Wait waits until it has ended and returns its exit code.
func (w *Watch) Wait(t testing.TB) int {
	t.Helper()
	if !Eventually(Settle, w.Over) {
		t.Fatalf("the watch did not end:\n%s", w.Log())
	}
	var exit *exec.ExitError
	if w.err != nil && !errors.As(w.err, &exit) && !errors.Is(w.err, os.ErrProcessDone) {
		t.Fatalf("wait for the watch: %v", w.err)
	}
	return w.cmd.ProcessState.ExitCode()
}
