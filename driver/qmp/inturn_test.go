package qmp_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/driver/qmp/qmptest"
)

func TestDialPipelined_calls_haveNoIDsAndAreAnsweredInTurn(t *testing.T) {
	var a, b, c string
	calls := []*qmp.Call{qmp.NewCall("a", nil, &a), qmp.NewCall("b", nil, &b), qmp.NewCall("c", nil, &c)}
	conn, err := qmp.DialPipelined(within(t), qmptest.Listen(t, func(p *qmptest.Peer) {
		p.Handshake()
		for _, name := range []string{"a", "b", "c"} {
			r := p.Expect(name)
			if r.ID != nil {
				t.Errorf("%s has the id %s", name, r.ID)
			}
			if name == "b" {
				p.Fail(r, "GenericError", "not b")
				continue
			}
			p.Event("BETWEEN", nil)
			p.Reply(r, "answer of "+name)
		}
		p.Serve(qmptest.Handlers{"later": func(r qmptest.Request) (any, error) { return string(r.ID), nil }})
	}), qmp.Options{}, calls...)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, conn)
	errs := errors.Join(calls[0].Wait(within(t)), calls[2].Wait(within(t)))
	var refused *qmp.Error
	if err := calls[1].Wait(within(t)); !errors.As(err, &refused) || refused.Command != "b" || refused.Desc != "not b" {
		t.Errorf("b: %v, want its refusal", err)
	}
	if errs != nil || a != "answer of a" || b != "" || c != "answer of c" {
		t.Errorf("answers %q %q %q, errors %v", a, b, c, errs)
	}
	var id string
	if err := conn.Do(within(t), "later", nil, &id); err != nil || id == "" {
		t.Errorf("a later call has the id %q (%v)", id, err)
	}
}

func TestDialPipelined_answersToAClientThatLeft_areDropped(t *testing.T) {
	var mine string
	call := qmp.NewCall("mine", nil, &mine)
	conn, err := qmp.DialPipelined(within(t), qmptest.Listen(t, func(p *qmptest.Peer) {
		p.Line(`{"return": "before the greeting"}`)
		p.Line(`{"return": {}, "id": "1"}`)
		p.Line(`{"error": {"class": "GenericError", "desc": "the client before has erred"}}`)
		p.Greet()
		enter := p.Expect("qmp_capabilities")
		p.Line(`{"return": "of a call without an id"}`)
		p.Line(`{"return": {}, "id": "1"}`)
		p.Reply(enter, nil)
		p.Reply(p.Expect("mine"), "mine")
		p.Stall()
	}), qmp.Options{}, call)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, conn)
	if err := call.Wait(within(t)); err != nil || mine != "mine" {
		t.Errorf("answer %q (%v)", mine, err)
	}
	if got := conn.LateReplies(); got != 5 {
		t.Errorf("LateReplies %d, want 5", got)
	}
}

func TestDialPipelined_handshakeCannotBeRead_endsAtOnce(t *testing.T) {
	_, err := qmp.DialPipelined(within(t), qmptest.Listen(t, func(p *qmptest.Peer) {
		p.Greet()
		p.Expect("qmp_capabilities")
		p.Line(`{"error": {"class": "GenericError", "desc": "JSON parse error, invalid keyword 'xecute'"}}`)
		p.Stall()
	}), qmp.Options{}, qmp.NewCall("a", nil, nil))
	if _, is := errors.AsType[*qmp.ProtocolError](err); !is || !strings.Contains(err.Error(), "invalid keyword") {
		t.Errorf("error %v, want what the peer could not read", err)
	}
}

func TestDialPipelined_callGivenUp_keepsItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, quick := "untouched", ""
		calls := []*qmp.Call{qmp.NewCall("slow", nil, &slow), qmp.NewCall("quick", nil, &quick)}
		goOn := make(chan struct{})
		conn, err := qmp.New(t.Context(), qmptest.Pipe(t, func(p *qmptest.Peer) {
			p.Handshake()
			a, b := p.Expect("slow"), p.Expect("quick")
			p.Hang(goOn)
			p.Reply(a, "late")
			p.Reply(b, "ok")
			p.Stall()
		}), qmp.Options{}, calls...)
		if err != nil {
			t.Fatal(err)
		}
		closeAtEnd(t, conn)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantErr(t, calls[0].Wait(ctx), context.DeadlineExceeded)
		close(goOn)
		if err := calls[1].Wait(t.Context()); err != nil || quick != "ok" || slow != "untouched" {
			t.Errorf("quick %q (%v), slow %q", quick, err, slow)
		}
		if got := conn.LateReplies(); got != 1 {
			t.Errorf("LateReplies %d, want 1", got)
		}
	})
}

func TestDialPipelined_peerEnds_everyCallIsOver(t *testing.T) {
	calls := []*qmp.Call{qmp.NewCall("a", nil, nil), qmp.NewCall("b", nil, nil)}
	conn, err := qmp.DialPipelined(within(t), qmptest.Listen(t, func(p *qmptest.Peer) {
		p.Handshake()
		p.Reply(p.Expect("a"), nil)
		p.Expect("b")
		p.Close()
	}), qmp.Options{}, calls...)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, conn)
	if err := calls[0].Wait(within(t)); err != nil {
		t.Errorf("a: %v", err)
	}
	wantErr(t, calls[1].Wait(within(t)), qmp.ErrClosed)
}

func TestDialPipelined_oneAnswerTooMany_isNobodys(t *testing.T) {
	call := qmp.NewCall("a", nil, nil)
	conn, err := qmp.DialPipelined(within(t), qmptest.Listen(t, func(p *qmptest.Peer) {
		p.Handshake()
		r := p.Expect("a")
		p.Reply(r, nil)
		p.Reply(r, nil)
		p.Stall()
	}), qmp.Options{}, call)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, conn)
	if err := call.Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	waitDone(t, conn)
	if _, is := errors.AsType[*qmp.ProtocolError](conn.Err()); !is || !strings.Contains(conn.Err().Error(), "no id") {
		t.Errorf("error %v, want that a reply has no id", conn.Err())
	}
}

// A client that leaves while QEMU works on its commands leaves answers behind. Who
// comes next must not take them for its own.
func TestQEMU_clientsThatLeaveInTheMiddle_theNextGetsItsOwnAnswers(t *testing.T) {
	q, run := listenForQEMU(t)
	run()
	for round := range 50 {
		left := make([]*qmp.Call, 0, 1+round%4)
		for range cap(left) {
			left = append(left, qmp.NewCall("query-commands", nil, nil))
		}
		gone, err := qmp.DialPipelined(within(t), q.path, qmp.Options{Handshake: bound}, left...)
		if err != nil {
			t.Fatal(err)
		}
		if err := gone.Close(); err != nil {
			t.Fatal(err)
		}
		var name struct{ Name string }
		var status struct{ Status string }
		var kvm struct{ Enabled *bool }
		calls := []*qmp.Call{qmp.NewCall("query-name", nil, &name), qmp.NewCall("query-status", nil, &status), qmp.NewCall("query-kvm", nil, &kvm)}
		conn, err := qmp.DialPipelined(within(t), q.path, qmp.Options{Handshake: bound}, calls...)
		if err != nil {
			t.Fatal(err)
		}
		var errs error
		for _, call := range calls {
			errs = errors.Join(errs, call.Wait(within(t)))
		}
		if errs != nil || status.Status == "" || kvm.Enabled == nil {
			t.Fatalf("round %d: status %+v, kvm %+v, errors %v", round, status, kvm, fmt.Errorf("%w", errs))
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
