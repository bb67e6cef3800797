package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver/qmp"
)

// scratchArgs start a QEMU that has no guest, touches no file and does nothing
// but answer.
func scratchArgs(extra ...string) []string {
	return append([]string{
		"-machine", "none", "-nodefaults", "-no-user-config", "-display", "none", "-S",
		"-sandbox", sandbox,
		"-chardev", fmt.Sprintf("socket,id=maqet.probe,fd=%d", firstFile),
		"-mon", "chardev=maqet.probe,mode=control",
	}, extra...)
}

// drainDelay is how long the last words of a killed scratch process may take.
const drainDelay = time.Second

// runScratch starts a scratch process, sends it the calls in one write, waits
// for every answer and ends it. The calls' own outcomes are in the calls; an
// error is a *BinaryError with QEMU's last line, or the context's.
func (p *Prober) runScratch(ctx context.Context, binary string, extra []string, calls ...*qmp.Call) (qmp.Greeting, error) {
	ctx, cancel := context.WithTimeout(ctx, p.times.Probe)
	defer cancel()
	ours, theirs, err := socketPair()
	if err != nil {
		return qmp.Greeting{}, fmt.Errorf("probe %s: %w", binary, err)
	}

	// The kernel kills the process when the thread that started it ends, which
	// is how none is left when maqet is killed; so the thread is kept until then.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var stderr lastWords
	//nolint:gosec // G204: a QEMU of the manifest's choice is what is run; it is killed below, whatever happens.
	cmd := exec.Command(binary, scratchArgs(extra...)...)
	cmd.Stderr, cmd.ExtraFiles, cmd.WaitDelay = &stderr, []*os.File{theirs}, drainDelay
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	// Our copy must go, or the end of the process would not end the connection.
	err = errors.Join(err, theirs.Close())
	if err != nil {
		_ = ours.Close()
		return qmp.Greeting{}, &BinaryError{Binary: binary, Msg: "cannot be run", Err: err, Hint: "check the file and its permissions"}
	}

	greeting, err := converse(ctx, ours, p.times.Probe, calls)
	_ = cmd.Process.Kill() // It may have ended, which is told by what follows.
	end := cmd.Wait()
	if err == nil {
		return greeting, nil
	}
	return greeting, scratchError(ctx, binary, extra, &stderr, end, err)
}

// converse greets the scratch process and waits for its answers. A refusal is
// an answer: only a conversation that broke off is an error.
func converse(ctx context.Context, nc net.Conn, budget time.Duration, calls []*qmp.Call) (qmp.Greeting, error) {
	conn, err := qmp.New(ctx, nc, qmp.Options{Handshake: budget}, calls...)
	if err != nil {
		return qmp.Greeting{}, err
	}
	defer func() { _ = conn.Close() }()
	for _, call := range calls {
		err := call.Wait(ctx)
		if refusal := (*qmp.Error)(nil); err != nil && !errors.As(err, &refusal) {
			return conn.Greeting(), err
		}
	}
	return conn.Greeting(), nil
}

// scratchError says why a scratch process did not answer: in QEMU's own last
// words, when it had any.
func scratchError(ctx context.Context, binary string, extra []string, stderr *lastWords, end, err error) error {
	e := &BinaryError{Binary: binary, Hint: "run it by hand to see more: " + QuoteShell(append([]string{binary, "-machine", "none", "-display", "none", "-sandbox", sandbox}, extra...))}
	last := stderr.line()
	var exit *exec.ExitError
	var lied *qmp.ProtocolError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("probe %s: %w", binary, context.Cause(ctx))
	case ctx.Err() != nil:
		e.Msg, e.Err = "did not answer in time", err
	case errors.As(err, &lied):
		e.Msg, e.Err = "does not answer as QEMU does", err
	case last != "":
		e.Msg = "ended before it answered: " + last
	case errors.As(end, &exit) && exit.Exited():
		e.Msg, e.Err = "ended before it answered", end
	default:
		e.Msg, e.Err = "does not answer as QEMU does", err
	}
	return e
}

// socketPair is a connection to ourselves: one end for us, one to be inherited.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "probe"), os.NewFile(uintptr(fds[1]), "probe of QEMU")
	conn, err := net.FileConn(ours)
	err = errors.Join(err, ours.Close()) // FileConn made a copy.
	if err != nil {
		_ = theirs.Close()
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return conn, theirs, nil
}

// lastWords keeps the end of what is written to it.
type lastWords struct{ tail []byte }

// lastWordsLen is how much is kept.
const lastWordsLen = 4096

// Write takes everything and never fails.
func (w *lastWords) Write(b []byte) (int, error) {
	w.tail = append(w.tail, b...)
	if len(w.tail) > lastWordsLen {
		w.tail = append(w.tail[:0], w.tail[len(w.tail)-lastWordsLen:]...)
	}
	return len(b), nil
}

// line is the last line that is not empty.
func (w *lastWords) line() string {
	text := strings.TrimSpace(string(w.tail))
	return strings.ToValidUTF8(strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:]), "?")
}
