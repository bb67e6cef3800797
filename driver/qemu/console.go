package qemu

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/internal/filelock"
)

// The ways in which a console ends or does not begin.
var (
	// ErrNoSerial is of a machine without a serial line, or without the log of it that is
	// asked for.
	ErrNoSerial = errors.New("it has no such line")
	// ErrConsoleTaken ends the console of one whom another has asked to leave.
	ErrConsoleTaken = errors.New("somebody else has taken the serial line")
	// ErrConsoleEnded ends a console whose QEMU has ended.
	ErrConsoleEnded = errors.New("the machine has ended")
)

// opConsole is what an error of a console says was tried.
const opConsole = "sit at the serial line of"

// ConsoleRequest is how somebody sits at a serial line.
type ConsoleRequest struct {
	// ReadOnly only looks: it follows the log, and leaves the line to whoever has it.
	ReadOnly bool
	// Take asks who has the line to leave.
	Take bool
	// Tail is how many last lines of the log are shown first; negative is all.
	Tail int
	// Out is where goes what the guest writes.
	Out io.Writer
}

// Console is somebody's seat at a serial line.
//
// What the guest writes is shown from the log, where the machine has one: then nothing is
// missed between the past and the present, all who look see the same, and QEMU never
// waits for a terminal, since the socket is read whether or not the terminal is.
type Console struct {
	driver *Driver
	name   string
	out    io.Writer
	log    *logReader     // nil without a log
	conn   net.Conn       // nil for who only looks
	lock   *filelock.Lock // likewise
	leave  *fileWatch     // likewise
	asked  string         // what SerialLeave said when the lock was taken
}

// Console takes a seat at a machine's serial line. Where somebody else has the line the
// error is filelock.ErrHeld. Whoever gets a console calls its Run, which ends it.
func (d *Driver) Console(ctx context.Context, name string, req ConsoleRequest) (_ *Console, err error) {
	logged, err := d.serialOf(name, req.ReadOnly)
	if err != nil {
		return nil, fail(opConsole, name, err, "")
	}
	c := &Console{driver: d, name: name, out: req.Out}
	defer func() {
		if err != nil {
			err = fail(opConsole, name, errors.Join(err, c.close()), "")
		}
	}()
	if !req.ReadOnly {
		if err := c.sit(ctx, req.Take); err != nil {
			return nil, err
		}
	}
	if logged {
		if c.log, err = d.openReader(d.layout.SerialLog(name), LogRequest{Tail: req.Tail, Follow: true}); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// serialOf tells whether a running machine's serial line has a log.
func (d *Driver) serialOf(name string, needLog bool) (logged bool, err error) {
	if err := d.usable(name); err != nil {
		return false, err
	}
	l, err := d.look(name)
	if err != nil {
		return false, err
	}
	defer l.close()
	switch {
	case l.standing == standingAbsent:
		return false, fail(opConsole, name, ErrNotRunning, "start it with: maqet start "+name)
	case l.standing == standingForeign:
		return false, fail(opConsole, name, l.foreign(), l.presentHint(name))
	case l.launched == nil || l.launched.Spec.Serial == nil:
		return false, fail(opConsole, name, ErrNoSerial, "add serial: {log: true} to its spec, and apply with --allow-restart")
	case needLog && !l.launched.Spec.Serial.Log:
		return false, fail(opConsole, name, fmt.Errorf("%w: only looking needs the log of the line", ErrNoSerial), "add log: true to its spec.serial, and apply with --allow-restart")
	}
	return l.launched.Spec.Serial.Log, nil
}

// sit takes the lock of the line and connects.
func (c *Console) sit(ctx context.Context, take bool) (err error) {
	d, path := c.driver, c.driver.layout.SerialLeave(c.name)
	c.lock, err = d.locks.TryLock(d.layout.SerialLock(c.name))
	if errors.Is(err, filelock.ErrHeld) && take {
		if err := durable.WriteVolatile(path, []byte(d.who+"\n"+rand.Text()+"\n"), 0); err != nil {
			return fmt.Errorf("ask who has the line to leave: %w", err)
		}
		waiting, cancel := context.WithTimeout(ctx, d.timing.Lock)
		defer cancel()
		c.lock, err = d.locks.Lock(waiting, d.layout.SerialLock(c.name))
	}
	if err != nil {
		return err
	}
	if c.leave, err = d.watchFile(path, true); err != nil {
		return err
	}
	c.asked = readLeave(path)
	dialing, cancel := context.WithTimeout(ctx, d.timing.Greeting)
	defer cancel()
	var dialer net.Dialer
	if c.conn, err = dialer.DialContext(dialing, "unix", d.layout.SerialSocket(c.name)); err != nil {
		return fmt.Errorf("connect to the serial line: %w", err)
	}
	return nil
}

// readLeave is what was last asked of who has the line; empty when nothing was.
func readLeave(path string) string {
	text, err := os.ReadFile(path) //nolint:gosec // G304: a file of the layout
	if err != nil {
		return "" // nobody has asked yet
	}
	return string(text)
}

// Write gives the guest what somebody types. It is for one goroutine, and fails when the
// guest does not read it in time.
func (c *Console) Write(b []byte) (int, error) {
	if c.conn == nil {
		return len(b), nil // who only looks has nothing to say
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.driver.timing.Query)); err != nil {
		return 0, err
	}
	n, err := c.conn.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fail(opConsole, c.name, errors.New("the guest does not read its serial line"), "see what it does: maqet describe "+c.name)
	}
	return n, err
}

// flushLook is how often is looked whether a guest has read all.
const flushLook = 5 * time.Millisecond

// Flush waits until the guest's serial line has taken in what was written: QEMU may drop
// what it has not read yet when the console ends.
func (c *Console) Flush(ctx context.Context) error {
	socket, ok := c.conn.(*net.UnixConn)
	if !ok {
		return nil // nothing was written
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.driver.timing.Query)
	defer cancel()
	for {
		var left int
		var asked error
		err := raw.Control(func(fd uintptr) { left, asked = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
		if err := errors.Join(err, asked); err != nil {
			return fmt.Errorf("ask whether the guest has read all: %w", err)
		}
		if left == 0 {
			return nil
		}
		if err := pause(ctx, flushLook); err != nil {
			return fail(opConsole, c.name, fmt.Errorf("the guest does not read its serial line: %w", err), "see what it does: maqet describe "+c.name)
		}
	}
}

// Run shows what the guest writes until ctx ends, QEMU does, or somebody else takes the
// line, and then leaves. Its error is never nil: it says which.
func (c *Console) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var tasks []func() error
	if c.log != nil {
		tasks = append(tasks, func() error { return c.log.copy(ctx, c.out) })
	}
	if c.conn != nil {
		tasks = append(tasks, c.read, func() error { return c.heedLeave(ctx) })
	}
	done := make(chan struct{}, len(tasks))
	for _, task := range tasks {
		go func() {
			defer func() { done <- struct{}{} }()
			defer func() {
				if p := recover(); p != nil {
					// Whoever sits there has a terminal to put in order.
					cancel(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
				}
			}()
			cancel(task())
		}()
	}
	<-ctx.Done()
	if c.conn != nil {
		_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // ends the reading; what it got is with the log
	}
	for range tasks {
		<-done
	}
	err := context.Cause(ctx)
	if c.log != nil && errors.Is(err, ErrConsoleEnded) {
		err = errors.Join(err, c.log.more(c.out)) // its last words
	}
	return errors.Join(err, c.close())
}

// read reads the socket until QEMU closes it.
func (c *Console) read() error {
	out := c.out
	if c.log != nil {
		out = io.Discard
	}
	// A QEMU that is killed with something unread resets the connection.
	if _, err := io.Copy(out, c.conn); err != nil && !errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("read the serial line: %w", err)
	}
	return ErrConsoleEnded
}

// heedLeave returns when somebody asks for the line.
func (c *Console) heedLeave(ctx context.Context) error {
	path := c.driver.layout.SerialLeave(c.name)
	for {
		if now := readLeave(path); now != c.asked {
			who, _, _ := strings.Cut(now, "\n")
			return fmt.Errorf("%w: %s", ErrConsoleTaken, who)
		}
		if err := c.leave.next(ctx); err != nil {
			return err
		}
	}
}

// close gives back what the console has.
func (c *Console) close() error {
	var errs []error
	if c.conn != nil {
		errs = append(errs, c.conn.Close())
	}
	if c.log != nil {
		errs = append(errs, c.log.close())
	}
	if c.leave != nil {
		errs = append(errs, c.leave.close())
	}
	if c.lock != nil {
		errs = append(errs, c.lock.Unlock())
	}
	return errors.Join(errs...)
}
