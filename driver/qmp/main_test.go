package qmp_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/driver/qmp/qmptest"
)

// TestMain finds goroutines that outlive their test. The exception is the caller
// of go-qemu's monitor that waits on a nil channel and can never be freed; all
// other callers of it are waited for where they are started.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/digitalocean/go-qemu/qmp.(*SocketMonitor).RunWithFile"))
}

// bound is how long any test here waits for anything real.
const bound = 20 * time.Second

// within returns a context that ends with the bound.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	t.Cleanup(cancel)
	return ctx
}

// dial connects to a scripted peer on a unix socket.
func dial(t testing.TB, opt qmp.Options, script qmptest.Script) *qmp.Conn {
	t.Helper()
	conn, err := qmp.Dial(within(t), qmptest.Listen(t, script), opt)
	if err != nil {
		t.Fatalf("Dial: %v", err)
	}
	closeAtEnd(t, conn)
	return conn
}

// pipe connects to a scripted peer without a socket, for synctest.
func pipe(t testing.TB, opt qmp.Options, script qmptest.Script) *qmp.Conn {
	t.Helper()
	conn, err := qmp.New(t.Context(), qmptest.Pipe(t, script), opt)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	closeAtEnd(t, conn)
	return conn
}

func closeAtEnd(t testing.TB, conn *qmp.Conn) {
	t.Helper()
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

// waitDone waits for the end of the connection.
func waitDone(t testing.TB, conn *qmp.Conn) {
	t.Helper()
	select {
	case <-conn.Done():
	case <-time.After(bound):
		t.Fatal("the connection did not end")
	}
}

// receive returns the next event.
func receive(t testing.TB, s *qmp.Subscription) qmp.Event {
	t.Helper()
	select {
	case e, ok := <-s.C():
		if !ok {
			t.Fatal("the events ended, want one more")
		}
		return e
	case <-time.After(bound):
		t.Fatal("no event came")
		return qmp.Event{}
	}
}

// wantErr fails unless err matches target.
func wantErr(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error %v, want one that is %v", err, target)
	}
}
