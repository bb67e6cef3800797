package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
)

// children are the processes that this driver has started. Each has one goroutine,
// which reaps it when it ends and is gone then.
type children struct {
	mu    sync.Mutex
	byUID map[string]*child
}

// child is one process that this driver has started.
type child struct {
	pid int
	// at is when it was started, which tells the starts of one machine apart.
	at     time.Time
	handle *handle
	done   chan struct{} // closed when it has been reaped
	status unix.WaitStatus
	err    error // of reaping
}

func newChildren() *children { return &children{byUID: map[string]*child{}} }

// adopt takes charge of a new child. Pidfd is its pidfd, or -1 where the kernel
// gave none. The child outlives ctx.
func (c *children) adopt(ctx context.Context, of *driver.Launched, pid, pidfd int) (*child, error) {
	k, err := newChild(pid, pidfd)
	if err != nil {
		return nil, err
	}
	k.at = of.At
	c.mu.Lock()
	c.byUID[of.UID] = k
	c.mu.Unlock()
	go k.reap(context.WithoutCancel(ctx))
	return k, nil
}

// newChild is a child that nobody waits for yet.
func newChild(pid, pidfd int) (*child, error) {
	var h *handle
	var err error
	if pidfd >= 0 {
		if err = unix.SetNonblock(pidfd, true); err == nil {
			h = newHandle(pid, pidfd)
		}
	} else {
		// Until it is reaped nobody else can have its pid.
		h, err = openHandle(pid)
	}
	if err != nil {
		return nil, fmt.Errorf("watch over process %d: %w", pid, err)
	}
	return &child{pid: pid, handle: h, done: make(chan struct{})}, nil
}

// of is the child that a launch record is of; nil when another process started it.
func (c *children) of(launched *driver.Launched) *child {
	if launched == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.byUID[launched.UID]; k != nil && k.at.Equal(launched.At) {
		return k
	}
	return nil
}

// forget drops what is remembered of a child that is over.
func (c *children) forget(launched *driver.Launched) {
	k := c.of(launched)
	if k == nil || !k.over() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byUID[launched.UID] == k {
		delete(c.byUID, launched.UID)
	}
}

// reap waits in the poller for the child's end, holding no thread meanwhile.
func (k *child) reap(ctx context.Context) {
	defer close(k.done)
	defer k.handle.close()
	if k.err = k.handle.wait(ctx); k.err != nil {
		return
	}
	for {
		_, err := unix.Wait4(k.pid, &k.status, 0, nil)
		if !errors.Is(err, unix.EINTR) {
			k.err = err
			return
		}
	}
}

// over tells whether the child has ended.
func (k *child) over() bool {
	select {
	case <-k.done:
		return true
	default:
		return false
	}
}

// wait returns when the child has ended.
func (k *child) wait(ctx context.Context) error {
	select {
	case <-k.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// kill ends the child and waits until it is gone.
func (k *child) kill(ctx context.Context) error {
	// A closed handle belongs to a child that has been reaped.
	if err := k.handle.signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	if err := k.wait(ctx); err != nil {
		return fmt.Errorf("process %d does not end: %w", k.pid, err)
	}
	return nil
}

// words say how the child ended.
func (k *child) words() string {
	switch {
	case !k.over() || k.err != nil:
		return driver.ExitNotSeen
	case k.status.Signaled():
		text := "signal " + unix.SignalName(k.status.Signal())
		if k.status.CoreDump() {
			text += " (core dumped)"
		}
		return text
	default:
		return fmt.Sprintf("exit status %d", k.status.ExitStatus())
	}
}
