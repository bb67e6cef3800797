package qmp_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/driver/qmp/qmptest"
)

func TestDo_callerGivesUp_lateReplyDroppedAndConnectionUsable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := pipe(t, qmp.Options{}, func(p *qmptest.Peer) {
			p.Handshake()
			slow := p.Expect("slow")
			quick := p.Expect("quick")
			p.Reply(slow, "late")
			p.Reply(slow, "and twice")
			p.Reply(quick, "ok")
			p.Stall()
		})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		text := "untouched"
		start := time.Now()
		err := conn.Do(ctx, "slow", nil, &text)
		wantErr(t, err, context.DeadlineExceeded)
		if errors.Is(err, qmp.ErrClosed) {
			t.Errorf("error %v, but the connection lives", err)
		}
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("took %s, want 30s", took)
		}
		var quick string
		if err := conn.Do(t.Context(), "quick", nil, &quick); err != nil || quick != "ok" {
			t.Fatalf("the next command: %v, %q", err, quick)
		}
		if text != "untouched" {
			t.Errorf("the late reply was written to the result: %q", text)
		}
		if got := conn.LateReplies(); got != 2 {
			t.Errorf("LateReplies %d, want 2", got)
		}
	})
}

func TestDo_contextOverBefore_nothingSent(t *testing.T) {
	conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) {
		p.Handshake()
		p.Reply(p.Expect("second"), nil)
		p.Stall()
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, conn.Do(ctx, "first", nil, nil), context.Canceled)
	if err := conn.Do(within(t), "second", nil, nil); err != nil {
		t.Error(err)
	}
}

func TestDo_peerStopsReading_writeEndsWithContextAndConnectionLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		conn := pipe(t, qmp.Options{}, func(p *qmptest.Peer) {
			p.Handshake()
			p.Hang(release)
			p.Reply(p.Expect("third"), nil)
			p.Stall()
		})
		// The first caller is stuck in the socket and the second behind it, each
		// no longer than it agreed to.
		errs := make(chan error, 2)
		start := time.Now()
		for _, d := range []time.Duration{2 * time.Second, 5 * time.Second} {
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), d)
				defer cancel()
				err := conn.Do(ctx, "x", nil, nil)
				if took := time.Since(start); took != d {
					t.Errorf("a call of %s took %s", d, took)
				}
				errs <- err
			}()
		}
		for range 2 {
			wantErr(t, <-errs, context.DeadlineExceeded)
		}
		close(release)
		if err := conn.Do(t.Context(), "third", nil, nil); err != nil {
			t.Errorf("after the peer woke up: %v", err)
		}
	})
}

func TestDo_writeStopsInTheMiddle_connectionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := pipe(t, qmp.Options{}, func(p *qmptest.Peer) {
			p.Handshake()
			p.ReadBytes(10)
			p.Hang(nil)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		pending := conn.Do(ctx, "x", nil, nil)
		wantErr(t, pending, context.DeadlineExceeded)
		wantErr(t, pending, qmp.ErrClosed)
		if !strings.Contains(pending.Error(), "stuck after 10 of") {
			t.Errorf("error %q does not say what happened", pending)
		}
		wantErr(t, conn.Err(), qmp.ErrClosed)
	})
}

func TestDo_bigCommandOverSocketNobodyReads_endsWithContext(t *testing.T) {
	conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) { p.Handshake(); p.Hang(nil) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := conn.Do(ctx, "x", map[string]string{"a": strings.Repeat("x", 1<<20)}, nil)
	wantErr(t, err, context.DeadlineExceeded)
	wantErr(t, err, qmp.ErrClosed)
}

func TestDo_peerGoneBeforeWrite_itsLastEventsAreStillRead(t *testing.T) {
	ready := make(chan struct{})
	conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) {
		p.Handshake()
		<-ready
		p.Event("SHUTDOWN", map[string]any{"guest": true})
	})
	sub := conn.Subscribe()
	close(ready)
	wantErr(t, conn.Do(within(t), "x", nil, nil), qmp.ErrClosed)
	if e := receive(t, sub); e.Name != "SHUTDOWN" {
		t.Errorf("event %q, want SHUTDOWN", e.Name)
	}
	waitDone(t, conn)
}

func TestDo_peerRefusesInputButStaysOpen_connectionEndsAllTheSame(t *testing.T) {
	closed := make(chan struct{})
	conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) {
		p.Handshake()
		p.Expect("pending")
		p.CloseRead()
		close(closed)
		p.Hang(nil)
	})
	pending := qmp.NewCall("pending", nil, nil)
	if err := conn.Send(within(t), pending); err != nil {
		t.Fatal(err)
	}
	<-closed
	for range 2 {
		err := conn.Do(within(t), "x", nil, nil)
		wantErr(t, err, qmp.ErrClosed)
		wantErr(t, err, syscall.EPIPE)
	}
	err := pending.Wait(within(t))
	wantErr(t, err, qmp.ErrClosed)
	wantErr(t, err, syscall.EPIPE)
	waitDone(t, conn)
}

func TestWait_severalWaiters_oneGivesUpForAll(t *testing.T) {
	conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) { p.Handshake(); p.Stall() })
	call := qmp.NewCall("x", nil, nil)
	if err := conn.Send(within(t), call); err != nil {
		t.Fatal(err)
	}
	other := make(chan error, 1)
	ctx := within(t)
	go func() { other <- call.Wait(ctx) }()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, call.Wait(gone), context.Canceled)
	wantErr(t, <-other, context.Canceled)
}

func TestDo_replyToTheClientBefore_isNobodysReply(t *testing.T) {
	left := make(chan qmptest.Request, 1)
	path := qmptest.Listen(t, func(p *qmptest.Peer) {
		p.Handshake()
		left <- p.Expect("slow")
		p.Stall()
	}, func(p *qmptest.Peer) {
		p.Handshake()
		next := p.Expect("next")
		// QEMU has finished what the client before had asked for.
		p.Reply(<-left, "to the client before")
		p.Reply(next, "ok")
		p.Stall()
	})
	first, err := qmp.Dial(within(t), path, qmp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Send(within(t), qmp.NewCall("slow", nil, nil)); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := qmp.Dial(within(t), path, qmp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got string
	if err := second.Do(within(t), "next", nil, &got); err != nil || got != "ok" {
		t.Errorf("the reply is %q, error %v", got, err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}
