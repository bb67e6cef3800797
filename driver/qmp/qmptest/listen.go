package qmptest

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Script plays the server's side of one connection. When it returns, the
// connection is closed.
type Script func(p *Peer)

// Pipe runs script at the far end of a net.Pipe and returns the near end.
func Pipe(t testing.TB, script Script) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	r := newRunner(t)
	r.start(far, script)
	return near
}

// SocketPath returns a path for a unix socket that is short enough to be one,
// which t.TempDir is not for tests with long names. The folder goes with the test.
func SocketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "qmp") //nolint:usetesting // t.TempDir holds the test's name, and a socket path at most 107 bytes.
	if err != nil {
		t.Fatalf("make a folder for a socket: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the folder of a socket: %v", err)
		}
	})
	return filepath.Join(dir, "q.sock")
}

// Listen serves scripts on a unix socket and returns its path: the first
// connection gets the first script, and so on; the last one serves all that
// follow. Unlike QEMU it serves several clients at once.
func Listen(t testing.TB, scripts ...Script) string {
	t.Helper()
	path := SocketPath(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatalf("listen on %s: %v", path, err)
	}
	Serve(t, l, scripts...)
	return path
}

// Serve is Listen on a listener that exists already. It closes l when the test
// ends.
func Serve(t testing.TB, l net.Listener, scripts ...Script) {
	t.Helper()
	if len(scripts) == 0 {
		t.Fatal("qmptest needs at least one script")
	}
	r := newRunner(t)
	r.onClose(l.Close)
	r.work.Go(func() {
		for i := 0; ; i++ {
			nc, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("accept on %s: %v", l.Addr(), err)
				}
				return
			}
			r.start(nc, scripts[min(i, len(scripts)-1)])
		}
	})
}

// runner owns the goroutines and connections of one test.
type runner struct {
	t    testing.TB
	work sync.WaitGroup

	mu     sync.Mutex
	over   bool
	closes []func() error
}

func newRunner(t testing.TB) *runner {
	r := &runner{t: t}
	t.Cleanup(r.stop)
	return r
}

// stop ends whatever still waits, and waits for it.
func (r *runner) stop() {
	r.mu.Lock()
	r.over = true
	closes := r.closes
	r.mu.Unlock()
	for _, fn := range closes {
		if err := fn(); err != nil && !errors.Is(err, net.ErrClosed) {
			r.t.Errorf("close a scripted connection: %v", err)
		}
	}
	r.work.Wait()
}

// onClose registers fn to be run at the end, or runs it at once after the end.
func (r *runner) onClose(fn func() error) {
	r.mu.Lock()
	over := r.over
	r.closes = append(r.closes, fn)
	r.mu.Unlock()
	if over {
		_ = fn() // the test is over, there is nobody left to tell
	}
}

func (r *runner) isOver() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.over
}

// start plays script over nc.
func (r *runner) start(nc net.Conn, script Script) {
	r.onClose(nc.Close)
	p := newPeer(r, nc)
	r.work.Go(func() {
		defer p.Close()
		script(p)
	})
}
