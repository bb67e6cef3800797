package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestSystemd_feed_stopsWhileNobodySupervises asks whether the watch is alive before
// each feed, and feeds nothing while there is no answer.
func TestSystemd_feed_stopsWhileNobodySupervises(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "")
	s := newSystemd(os.Getenv, slog.New(slog.DiscardHandler))
	if s.pause != 10*time.Millisecond {
		t.Fatalf("fed every %s, want half of 20ms", s.pause)
	}
	received := func(within time.Duration) string {
		t.Helper()
		if err := socket.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1000)
		n, err := socket.Read(buf)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		return string(buf[:n])
	}

	ctx, cancel := context.WithCancel(t.Context())
	asked, answer, ended := make(chan struct{}), make(chan error), make(chan error, 1)
	go func() {
		ended <- s.feed(ctx, func(ctx context.Context) error {
			asked <- struct{}{}
			select {
			case err := <-answer:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	for range 3 {
		<-asked
		// Five feeds would have come by now.
		if got := received(50 * time.Millisecond); got != "" {
			t.Fatalf("fed %q although nobody has said that anything is alive", got)
		}
		answer <- nil
		if got := received(10 * time.Second); got != "WATCHDOG=1" {
			t.Fatalf("told %q, want WATCHDOG=1", got)
		}
	}
	<-asked
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("feed = %v, want the context's error", err)
	}
}
