package qmp_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/driver/qmp/qmptest"
)

func TestDial_peerGreets_greetingIsKept(t *testing.T) {
	conn := dial(t, qmp.Options{}, qmptest.Greeted(nil))
	want := qmp.Greeting{Major: 7, Minor: 2, Micro: 22, Package: "qmptest", Capabilities: []string{"oob"}}
	if diff := cmp.Diff(want, conn.Greeting()); diff != "" {
		t.Errorf("greeting (-want +got):\n%s", diff)
	}
	if got, want := conn.Greeting().String(), "7.2.22 (qmptest)"; got != want {
		t.Errorf("greeting prints %q, want %q", got, want)
	}
	if err := conn.Err(); err != nil {
		t.Errorf("Err of a living connection: %v", err)
	}
}

func TestDial_noSocket_errorNamesPathAndCause(t *testing.T) {
	path := filepath.Join(t.TempDir(), "absent.sock")
	_, err := qmp.Dial(within(t), path, qmp.Options{})
	wantErr(t, err, os.ErrNotExist)
	if !strings.Contains(err.Error(), path) {
		t.Errorf("error %q does not name %s", err, path)
	}
}

func TestDial_deadSocket_connectionRefused(t *testing.T) {
	path := qmptest.SocketPath(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = qmp.Dial(within(t), path, qmp.Options{})
	wantErr(t, err, syscall.ECONNREFUSED)
}

func TestDial_pathTooLong_refusedWithRemedy(t *testing.T) {
	path := "/" + strings.Repeat("x", 107)
	_, err := qmp.Dial(within(t), path, qmp.Options{})
	if err == nil || !strings.Contains(err.Error(), "shorter run directory") {
		t.Errorf("error %v, want the remedy", err)
	}
}

func TestDial_listenQueueFull_waitsForItsTurn(t *testing.T) {
	path := qmptest.SocketPath(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() { _ = file.Close() })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	// Nobody accepts: the queue takes one client, and then answers EAGAIN.
	first, err := new(net.Dialer).DialContext(within(t), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = first.Close() })

	_, err = qmp.Dial(within(t), path, qmp.Options{Handshake: 50 * time.Millisecond})
	wantErr(t, err, context.DeadlineExceeded)
	wantErr(t, err, syscall.EAGAIN)

	l, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	var conn *qmp.Conn
	ctx := within(t)
	dialled := make(chan error, 1)
	go func() {
		var err error
		conn, err = qmp.Dial(ctx, path, qmp.Options{Handshake: bound})
		dialled <- err
	}()
	qmptest.Serve(t, l, qmptest.Greeted(nil))
	if err := <-dialled; err != nil {
		t.Fatalf("once there was room: %v", err)
	}
	closeAtEnd(t, conn)
}
