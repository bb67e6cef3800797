package qmp_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/driver/qmp/qmptest"
)

func TestNew_peerSilent_handshakeEndsWithinBudget(t *testing.T) {
	for _, tc := range []struct {
		name, stage string
		script      qmptest.Script
	}{
		{"no greeting", "no greeting", func(p *qmptest.Peer) { p.Stall() }},
		{"reads nothing", "no greeting", func(p *qmptest.Peer) { p.Hang(nil) }},
		{"half a greeting", "no greeting", func(p *qmptest.Peer) { p.Raw(qmptest.Greeting[:20]); p.Stall() }},
		{"greeting only", "greeted, but not ready", func(p *qmptest.Peer) { p.Greet(); p.Stall() }},
		{"greets, reads nothing", "greeted, but not ready", func(p *qmptest.Peer) { p.Greet(); p.Hang(nil) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				call := qmp.NewCall("query-status", nil, nil)
				_, err := qmp.New(t.Context(), qmptest.Pipe(t, tc.script), qmp.Options{Handshake: 3 * time.Second}, call)
				wantErr(t, err, context.DeadlineExceeded)
				if took := time.Since(start); took != 3*time.Second {
					t.Errorf("took %s, want 3s", took)
				}
				if !strings.Contains(err.Error(), tc.stage) || !strings.Contains(err.Error(), "another client") {
					t.Errorf("error %q, want %q and the likely causes", err, tc.stage)
				}
				if call.Err() == nil {
					t.Error("the pipelined call is still pending")
				}
			})
		})
	}
}

func TestNew_contextEndsFirst_handshakeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := qmp.New(ctx, qmptest.Pipe(t, func(p *qmptest.Peer) { p.Stall() }), qmp.Options{})
		wantErr(t, err, context.DeadlineExceeded)
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %s, want 1s", took)
		}
	})
}

func TestDial_peerLies_protocolErrorSaysHow(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		script     qmptest.Script
	}{
		{"no QMP", "not a QMP message", func(p *qmptest.Peer) { p.Line("SSH-2.0-OpenSSH_9.2"); p.Stall() }},
		{"reply first", "before the greeting", func(p *qmptest.Peer) { p.Reply(p.Expect("qmp_capabilities"), nil); p.Stall() }},
		{"greeting without version", "greeting cannot be read", func(p *qmptest.Peer) { p.Line(`{"QMP": {}}`); p.Stall() }},
		{"greeting of a wrong type", "greeting cannot be read", func(p *qmptest.Peer) { p.Line(`{"QMP": 1}`); p.Stall() }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := qmp.Dial(within(t), qmptest.Listen(t, tc.script), qmp.Options{})
			if _, is := errors.AsType[*qmp.ProtocolError](err); !is {
				t.Fatalf("error %v, want a *ProtocolError", err)
			}
			wantErr(t, err, qmp.ErrClosed)
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q, want %q in it", err, tc.want)
			}
		})
	}
}

func TestDial_eventBeforeGreeting_isDeliveredAndNoFault(t *testing.T) {
	c, err := qmp.Dial(within(t), qmptest.Listen(t, func(p *qmptest.Peer) {
		p.Event("RESUME", nil)
		p.Greet()
		p.Reply(p.Expect("qmp_capabilities"), struct{}{})
		p.Stall()
	}), qmp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	select {
	case e := <-c.Subscribe().C():
		if e.Name != "RESUME" {
			t.Errorf("event %s, want RESUME", e.Name)
		}
	default:
		t.Error("the event was lost")
	}
}

func TestDial_capabilitiesRefused_errorIsQEMUs(t *testing.T) {
	_, err := qmp.Dial(within(t), qmptest.Listen(t, func(p *qmptest.Peer) {
		p.Greet()
		p.Fail(p.Expect("qmp_capabilities"), "GenericError", "not today")
		p.Stall()
	}), qmp.Options{})
	var qerr *qmp.Error
	if !errors.As(err, &qerr) || qerr.Desc != "not today" {
		t.Errorf("error %v, want the refusal", err)
	}
}

func TestDo_peerBreaksProtocol_everyCallEndsWithTheReason(t *testing.T) {
	for _, tc := range []struct{ name, line, want string }{
		{"no JSON", `{"return": `, "not a QMP message"},
		{"empty object", `{}`, "neither greeting, event nor reply"},
		{"array", `[1]`, "not a QMP message"},
		{"event of a wrong type", `{"event": 1}`, "not a QMP message"},
		{"numeric id", `{"return": {}, "id": 2}`, "not a string"},
		{"no id", `{"return": {}}`, "has no id"},
		{"parse error of the peer", `{"error": {"class": "GenericError", "desc": "JSON parse error"}}`, "could not read a command: JSON parse error"},
		{"error of a wrong type", `{"error": "no", "id": "2"}`, "error reply cannot be read"},
		{"second greeting", qmptest.Greeting, "second greeting"},
		{"a NUL", "\x00", "not a QMP message"},
		{"two messages in a line", `{"return": {}, "id": "2"} {"return": {}, "id": "3"}`, "not a QMP message"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) {
				p.Handshake()
				p.Expect("x")
				p.Line(tc.line)
				p.Stall()
			})
			err := conn.Do(within(t), "x", nil, nil)
			wantErr(t, err, qmp.ErrClosed)
			var perr *qmp.ProtocolError
			if !errors.As(err, &perr) || !strings.Contains(perr.Error(), tc.want) {
				t.Errorf("error %v, want a *ProtocolError with %q", err, tc.want)
			}
			wantErr(t, conn.Err(), qmp.ErrClosed)
			wantErr(t, conn.Do(within(t), "y", nil, nil), qmp.ErrClosed)
		})
	}
}

func TestDo_replyAtTheBound_accepted_oneOver_namesTheBound(t *testing.T) {
	const limit = 100_000
	conn := dial(t, qmp.Options{MaxReply: limit}, func(p *qmptest.Peer) {
		p.Handshake()
		p.Oversized(p.Expect("fits"), limit)
		p.Oversized(p.Expect("over"), limit+1)
		p.Stall()
	})
	var text string
	if err := conn.Do(within(t), "fits", nil, &text); err != nil {
		t.Fatalf("a line of exactly the bound: %v", err)
	}
	if len(text) < limit-100 || strings.Trim(text, "x") != "" {
		t.Errorf("the reply is damaged: %d bytes", len(text))
	}
	err := conn.Do(within(t), "over", nil, nil)
	wantErr(t, err, qmp.ErrClosed)
	var perr *qmp.ProtocolError
	if !errors.As(err, &perr) || !strings.Contains(perr.Error(), "100000 bytes") || !strings.Contains(perr.Error(), "MaxReply") {
		t.Errorf("error %v, want one that names the bound", err)
	}
}

func TestDo_endlessLine_endsAtTheBoundWithoutItsEnd(t *testing.T) {
	conn := dial(t, qmp.Options{MaxReply: 1 << 20}, func(p *qmptest.Peer) {
		p.Handshake()
		p.Expect("x")
		for {
			p.Raw(strings.Repeat("[", 4096))
		}
	})
	var perr *qmp.ProtocolError
	if err := conn.Do(within(t), "x", nil, nil); !errors.As(err, &perr) {
		t.Errorf("error %v, want a *ProtocolError", err)
	}
}

func TestDo_peerGoes_everyWayIsErrClosed(t *testing.T) {
	for _, tc := range []struct {
		name  string
		cause error
		end   func(*qmptest.Peer)
	}{
		{"between lines", io.EOF, func(p *qmptest.Peer) { p.Expect("x") }},
		{"in mid-word", io.ErrUnexpectedEOF, func(p *qmptest.Peer) { p.Expect("x"); p.Raw(`{"return": {}, "id": "2"}`) }},
		{"after the carriage return", io.ErrUnexpectedEOF, func(p *qmptest.Peer) { p.Expect("x"); p.Raw("{\"return\": {}, \"id\": \"2\"}\r") }},
		{"by reset", nil, func(p *qmptest.Peer) { p.Reset() }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) { p.Handshake(); tc.end(p) })
			start := time.Now()
			err := conn.Do(within(t), "x", nil, nil)
			wantErr(t, err, qmp.ErrClosed)
			if tc.cause != nil {
				wantErr(t, err, tc.cause)
			}
			if took := time.Since(start); took > bound/2 {
				t.Errorf("took %s", took)
			}
			waitDone(t, conn)
			wantErr(t, conn.Do(within(t), "y", nil, nil), qmp.ErrClosed)
		})
	}
}

func TestDo_manyPendingWhenPeerGoes_allEnd(t *testing.T) {
	conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) {
		p.Handshake()
		for range 50 {
			p.Next()
		}
	})
	calls := make([]*qmp.Call, 50)
	for i := range calls {
		calls[i] = qmp.NewCall("x", nil, nil)
	}
	if err := conn.DoAll(within(t), calls...); err == nil {
		t.Fatal("DoAll succeeded, want errors")
	}
	for _, call := range calls {
		wantErr(t, call.Err(), qmp.ErrClosed)
	}
}

func TestDialPipelined_peerDiesAfterGreeting_callEndsQuickly(t *testing.T) {
	// This is a QEMU that does not like its -device: it has greeted already.
	path := qmptest.Listen(t, func(p *qmptest.Peer) { p.Greet() })
	call := qmp.NewCall("query-status", nil, nil)
	start := time.Now()
	_, err := qmp.DialPipelined(within(t), path, qmp.Options{Handshake: bound}, call)
	wantErr(t, err, qmp.ErrClosed)
	wantErr(t, call.Wait(within(t)), qmp.ErrClosed)
	if took := time.Since(start); took > bound/2 {
		t.Errorf("took %s", took)
	}
}

func TestDialPipelined_nobodyListens_callsFailToo(t *testing.T) {
	call := qmp.NewCall("query-status", nil, nil)
	_, err := qmp.DialPipelined(within(t), qmptest.SocketPath(t), qmp.Options{}, call)
	if err == nil || !errors.Is(call.Err(), err) {
		t.Errorf("Dial: %v, call: %v, want one error", err, call.Err())
	}
}

func TestDialPipelined_peerGreetsLast_commandsWereWrittenBefore(t *testing.T) {
	path := qmptest.Listen(t, func(p *qmptest.Peer) {
		enter, status := p.Expect("qmp_capabilities"), p.Expect("query-status")
		p.Greet()
		p.Reply(enter, nil)
		p.Reply(status, map[string]string{"status": "running"})
		p.Stall()
	})
	var got struct{ Status string }
	call := qmp.NewCall("query-status", nil, &got)
	conn, err := qmp.DialPipelined(within(t), path, qmp.Options{}, call)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, conn)
	if err := call.Wait(within(t)); err != nil || got.Status != "running" {
		t.Errorf("query-status: %v, %q", err, got.Status)
	}
}

func TestDo_bigReplies_arriveUndamagedAmongEvents(t *testing.T) {
	// A client that hands out its read buffer damages such replies.
	body := make([]int, 2000)
	for i := range body {
		body[i] = i
	}
	conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) {
		p.Handshake()
		for range 200 {
			p.Reply(p.Expect("big"), body)
			p.Flood(3)
		}
		p.Stall()
	})
	for range 200 {
		var raw json.RawMessage
		if err := conn.Do(within(t), "big", nil, &raw); err != nil {
			t.Fatal(err)
		}
		var got []int
		if err := json.Unmarshal(raw, &got); err != nil || len(got) != len(body) || got[1999] != 1999 {
			t.Fatalf("damaged reply: %v", err)
		}
	}
}
