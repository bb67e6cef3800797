package qmp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/driver/qmp/qmptest"
)

// qemu is a real QEMU without a machine. Its monitor's socket listens before it
// runs, and is passed to it.
type qemu struct {
	path string
	cmd  *exec.Cmd
	log  *strings.Builder
	exit chan struct{} // closed once it is reaped
}

const binary = "qemu-system-x86_64"

// listenForQEMU makes the socket; run starts QEMU on it.
func listenForQEMU(t *testing.T, args ...string) (q *qemu, run func()) {
	t.Helper()
	if _, err := exec.LookPath(binary); err != nil {
		t.Skipf("no real QEMU here: %v", err)
	}
	path := qmptest.SocketPath(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	passed, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{
		"-machine", "none", "-S", "-nodefaults", "-no-user-config", "-display", "none",
		"-chardev", "socket,id=q,fd=3,server=on,wait=off", "-mon", "chardev=q,mode=control",
	}, args...)
	q = &qemu{path: path, log: &strings.Builder{}, exit: make(chan struct{})}
	q.cmd = exec.Command(binary, args...) //nolint:gosec,noctx // Fixed arguments, and it is ended below with a reason.
	q.cmd.ExtraFiles = []*os.File{passed}
	q.cmd.Stdout, q.cmd.Stderr = q.log, q.log
	return q, func() {
		t.Helper()
		if err := q.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			defer close(q.exit)
			if err := q.cmd.Wait(); err != nil {
				t.Logf("QEMU ended: %v", err)
			}
		}()
		// As long as a copy is open here, a dead QEMU's socket would not close.
		if err := errors.Join(l.Close(), passed.Close()); err != nil {
			t.Error(err)
		}
		t.Cleanup(func() { q.stop(t) })
	}
}

// stop ends QEMU if it still runs, and reaps it.
func (q *qemu) stop(t *testing.T) {
	t.Helper()
	if err := q.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("kill QEMU: %v", err)
	}
	select {
	case <-q.exit:
	case <-time.After(bound):
		t.Error("QEMU does not end")
	}
}

// waitStopped waits until the kernel has stopped QEMU's main thread, which
// happens some time after the signal was sent.
func (q *qemu) waitStopped(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx := within(t); ; {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", q.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(stat, []byte(") T ")) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("QEMU does not stop: %s", stat)
		}
	}
}

// dialQEMU starts a QEMU and connects to it.
func dialQEMU(t *testing.T) *qmp.Conn {
	t.Helper()
	q, run := listenForQEMU(t)
	run()
	conn, err := qmp.Dial(within(t), q.path, qmp.Options{Handshake: bound})
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, conn)
	return conn
}

func TestQEMU_schema_oneCall(t *testing.T) {
	conn := dialQEMU(t)
	if g := conn.Greeting(); g.Major < 7 {
		t.Errorf("greeting %s, want at least 7.2", g)
	}
	var schema []struct{ Name string }
	if err := conn.Do(within(t), "query-qmp-schema", nil, &schema); err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool, len(schema))
	for _, entity := range schema {
		names[entity.Name] = true
	}
	if len(schema) < 500 || !names["query-status"] || !names["SHUTDOWN"] {
		t.Errorf("the schema has %d entities, query-status %v, SHUTDOWN %v", len(schema), names["query-status"], names["SHUTDOWN"])
	}
}

func TestQEMU_hundredCallers_eachGetsItsOwnReply(t *testing.T) {
	conn := dialQEMU(t)
	ctx := within(t)
	var callers sync.WaitGroup
	for i := range 100 {
		callers.Go(func() {
			// Each caller reads another type's properties, and only its own are right.
			typename := []string{"secret", "iothread", "rng-random", "memory-backend-ram"}[i%4]
			own := []string{"keyid", "poll-max-ns", "filename", "share"}[i%4]
			for range 3 {
				var props []struct{ Name string }
				if err := conn.Do(ctx, "qom-list-properties", map[string]string{"typename": typename}, &props); err != nil {
					t.Errorf("caller %d: %v", i, err)
					return
				}
				found := false
				for _, p := range props {
					found = found || p.Name == own
				}
				if !found {
					t.Errorf("caller %d: %s has no property %s in %v", i, typename, own, props)
				}
			}
		})
	}
	callers.Wait()
}

func TestQEMU_refusals_haveTheirClass(t *testing.T) {
	conn := dialQEMU(t)
	for _, tc := range []struct {
		command, class string
		args           any
	}{
		{"device_add", qmp.ClassGenericError, map[string]any{"driver": "no-such-device", "id": "a"}},
		{"device_del", qmp.ClassDeviceNotFound, map[string]any{"id": "no-such-device"}},
		{"query-nonsense", qmp.ClassCommandNotFound, nil},
		{"query-status", qmp.ClassGenericError, map[string]any{"unexpected": true}},
	} {
		err := conn.Do(within(t), tc.command, tc.args, nil)
		var qerr *qmp.Error
		if !errors.As(err, &qerr) || qerr.Class != tc.class || qerr.Desc == "" || qerr.Command != tc.command {
			t.Errorf("%s: %v, want class %s", tc.command, err, tc.class)
		}
	}
}

func TestQEMU_pipelinedBeforeItRuns_statusAnswered(t *testing.T) {
	q, run := listenForQEMU(t)
	var status struct{ Status string }
	call := qmp.NewCall("query-status", nil, &status)
	dialled := make(chan *qmp.Conn, 1)
	ctx := within(t)
	go func() {
		conn, err := qmp.DialPipelined(ctx, q.path, qmp.Options{Handshake: bound}, call)
		if err != nil {
			t.Errorf("DialPipelined: %v", err)
		}
		dialled <- conn
	}()
	run()
	if conn := <-dialled; conn != nil {
		closeAtEnd(t, conn)
	}
	if err := call.Wait(within(t)); err != nil || status.Status != "prelaunch" {
		t.Errorf("query-status: %v, %q, want prelaunch", err, status.Status)
	}
}

func TestQEMU_badDevice_pendingCallEndsWithErrClosed(t *testing.T) {
	q, run := listenForQEMU(t, "-device", "no-such-device")
	// The client is in the socket's queue before QEMU exists, which no dial by Conn
	// could promise.
	nc, err := new(net.Dialer).DialContext(within(t), "unix", q.path)
	if err != nil {
		t.Fatal(err)
	}
	run()
	call := qmp.NewCall("query-status", nil, nil)
	conn, err := qmp.New(within(t), nc, qmp.Options{Handshake: bound}, call)
	if err == nil {
		closeAtEnd(t, conn)
	} else {
		wantErr(t, err, qmp.ErrClosed)
	}
	err = call.Wait(within(t))
	wantErr(t, err, qmp.ErrClosed)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v: waited for the deadline instead of the end", err)
	}
	select {
	case <-q.exit:
	case <-time.After(bound):
		t.Fatal("QEMU accepted the device")
	}
	if !strings.Contains(q.log.String(), "no-such-device") {
		t.Errorf("QEMU said %q", q.log)
	}
}

func TestQEMU_secondClient_waitsWithItsBudgetAndThenItsTurn(t *testing.T) {
	q, run := listenForQEMU(t)
	run()
	first, err := qmp.Dial(within(t), q.path, qmp.Options{Handshake: bound})
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, first)
	_, err = qmp.Dial(within(t), q.path, qmp.Options{Handshake: 50 * time.Millisecond})
	wantErr(t, err, context.DeadlineExceeded)
	if !strings.Contains(err.Error(), "another client") || !strings.Contains(err.Error(), q.path) {
		t.Errorf("error %q does not name the likely cause and the socket", err)
	}
	third := make(chan error, 1)
	ctx := within(t)
	go func() {
		conn, err := qmp.Dial(ctx, q.path, qmp.Options{Handshake: bound})
		if err == nil {
			err = errors.Join(conn.Do(ctx, "query-status", nil, nil), conn.Close())
		}
		third <- err
	}()
	if err := first.Do(ctx, "query-status", nil, nil); err != nil {
		t.Errorf("the first client while another waits: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if err := <-third; err != nil {
		t.Errorf("once the first left: %v", err)
	}
}

func TestQEMU_quit_lastEventIsReadAndConnectionEnds(t *testing.T) {
	conn := dialQEMU(t)
	sub := conn.Subscribe()
	if err := conn.Do(within(t), "quit", nil, nil); err != nil {
		t.Fatal(err)
	}
	waitDone(t, conn)
	e := receive(t, sub)
	var data struct {
		Guest  bool
		Reason string
	}
	if err := json.Unmarshal(e.Data, &data); err != nil || e.Name != "SHUTDOWN" || data.Reason != "host-qmp-quit" {
		t.Errorf("event %s %s: %v", e.Name, e.Data, err)
	}
	if time.Since(e.Timestamp) > time.Hour {
		t.Errorf("the event is of %s", e.Timestamp)
	}
	wantErr(t, conn.Do(within(t), "query-status", nil, nil), qmp.ErrClosed)
}

func TestQEMU_stopped_callEndsWithItsContextAndLaterOnesWork(t *testing.T) {
	q, run := listenForQEMU(t)
	run()
	conn, err := qmp.Dial(within(t), q.path, qmp.Options{Handshake: bound})
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, conn)
	if err := q.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	q.waitStopped(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	wantErr(t, conn.Do(ctx, "query-status", nil, nil), context.DeadlineExceeded)
	if err := q.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := conn.Do(within(t), "query-status", nil, nil); err != nil {
		t.Errorf("after QEMU went on: %v", err)
	}
	if got := conn.LateReplies(); got != 1 {
		t.Errorf("LateReplies %d, want 1", got)
	}
}

func TestQEMU_oddText_comesBackIntact(t *testing.T) {
	conn := dialQEMU(t)
	want := "a,b=c \"d\" \\ '\n\t\x01\x7f é 漢 🐧 <&> \u2028 \ufffd"
	args := map[string]string{"qom-type": "authz-simple", "id": "a0", "identity": want}
	if err := conn.Do(within(t), "object-add", args, nil); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := conn.Do(within(t), "qom-get", map[string]string{"path": "/objects/a0", "property": "identity"}, &got); err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestQEMU_getfd_eachDescriptorArrives(t *testing.T) {
	conn := dialQEMU(t)
	ctx := within(t)
	var callers sync.WaitGroup
	for i := range 10 {
		callers.Go(func() {
			if err := checkFD(ctx, conn, fmt.Sprintf("fd%d", i)); err != nil {
				t.Errorf("descriptor %d: %v", i, err)
			}
			if err := conn.Do(ctx, "query-status", nil, nil); err != nil {
				t.Errorf("a command between descriptors: %v", err)
			}
		})
	}
	callers.Wait()
	if err := conn.Do(ctx, "getfd", map[string]string{"fdname": "none"}, nil); !qmp.IsClass(err, qmp.ClassGenericError) {
		t.Errorf("getfd without a descriptor: %v, want a refusal", err)
	}
	pipeConn := pipe(t, qmp.Options{}, qmptest.Greeted(nil))
	if err := pipeConn.DoWithFile(ctx, "getfd", nil, nil, os.Stdin); err == nil || !strings.Contains(err.Error(), "unix socket") {
		t.Errorf("over a net.Pipe: %v, want a refusal", err)
	}
}

// checkFD passes the writing end of a pipe of its own, and has QEMU close it: the
// reading end then sees the end, which proves that it was this very pipe.
func checkFD(ctx context.Context, conn *qmp.Conn, name string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	args := map[string]string{"fdname": name}
	if err := conn.DoWithFile(ctx, "getfd", args, nil, w); err != nil {
		return errors.Join(err, w.Close())
	}
	if err := w.Close(); err != nil {
		return err
	}
	// QEMU holds the last writing end now.
	if err := r.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("read while QEMU holds the other end: %w", err)
	}
	if err := conn.Do(ctx, "closefd", args, nil); err != nil {
		return err
	}
	if err := r.SetReadDeadline(time.Now().Add(bound)); err != nil {
		return err
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("read after QEMU closed the other end: %w", err)
	}
	return nil
}
