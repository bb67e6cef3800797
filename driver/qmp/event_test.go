package qmp_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/driver/qmp/qmptest"
)

func TestSubscribe_event_dataIsExact(t *testing.T) {
	conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) {
		p.Handshake()
		p.Event("BALLOON_CHANGE", map[string]uint64{"actual": 1<<63 + 1})
		p.Event("STOP", nil)
		p.Stall()
	})
	sub := conn.Subscribe()
	first, second := receive(t, sub), receive(t, sub)
	if got, want := string(first.Data), `{"actual":9223372036854775809}`; got != want {
		t.Errorf("data %s, want %s", got, want)
	}
	if want := time.Unix(qmptest.EventTime, 250_000_000); !first.Timestamp.Equal(want) {
		t.Errorf("timestamp %s, want %s", first.Timestamp, want)
	}
	if second.Name != "STOP" || second.Data != nil {
		t.Errorf("second event %+v", second)
	}
}

func TestSubscribe_first_beginsWithTheFirstByte_laterOnesBeginNow(t *testing.T) {
	conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) {
		p.Greet()
		enter := p.Expect("qmp_capabilities")
		p.Event("EARLY", nil)
		p.Reply(enter, nil)
		p.Expect("go")
		p.Event("LATE", nil)
		p.Stall()
	})
	first, second := conn.Subscribe(), conn.Subscribe()
	if err := conn.Send(within(t), qmp.NewCall("go", nil, nil)); err != nil {
		t.Fatal(err)
	}
	if a, b := receive(t, first).Name, receive(t, first).Name; a != "EARLY" || b != "LATE" {
		t.Errorf("first got %s, %s", a, b)
	}
	if e := receive(t, second); e.Name != "LATE" {
		t.Errorf("second got %s", e.Name)
	}
}

func TestSubscribe_nobodyReads_repliesFlowAndOldestAreDroppedAndCounted(t *testing.T) {
	const sent, kept = 5000, 16
	conn := dial(t, qmp.Options{EventBuffer: kept}, func(p *qmptest.Peer) {
		p.Handshake()
		r := p.Expect("x")
		p.Flood(sent)
		p.Reply(r, nil)
		p.Stall()
	})
	sub := conn.Subscribe()
	if _, err := conn.Events(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := conn.Do(within(t), "x", nil, nil); err != nil {
		t.Fatalf("a reply behind %d unread events: %v", sent, err)
	}
	if got := sub.Dropped(); got != sent-kept {
		t.Errorf("Dropped %d, want %d", got, sent-kept)
	}
	if e := receive(t, sub); string(e.Data) != `{"n":4984}` {
		t.Errorf("the oldest kept event is %s, want n 4984", e.Data)
	}
}

func TestSubscribe_severalReaders_allSeeAllInOrder(t *testing.T) {
	const n = 200
	conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) {
		p.Handshake()
		p.Expect("go")
		p.Flood(n)
	})
	var subs []*qmp.Subscription
	for range 5 {
		subs = append(subs, conn.Subscribe())
	}
	if err := conn.Send(within(t), qmp.NewCall("go", nil, nil)); err != nil {
		t.Fatal(err)
	}
	waitDone(t, conn)
	var want []string
	for i, sub := range subs {
		var got []string
		for e := range sub.C() {
			got = append(got, string(e.Data))
		}
		if i == 0 {
			want = got
		}
		if len(got) != n || !cmp.Equal(want, got) || got[n-1] != `{"n":199}` {
			t.Errorf("reader %d got %d events", i, len(got))
		}
	}
}

func TestSubscription_closed_othersGoOn(t *testing.T) {
	conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) {
		p.Handshake()
		p.Expect("go")
		p.Event("A", nil)
		p.Stall()
	})
	gone, stays := conn.Subscribe(), conn.Subscribe()
	gone.Close()
	gone.Close()
	if _, open := <-gone.C(); open {
		t.Error("a closed subscription is open")
	}
	if err := conn.Send(within(t), qmp.NewCall("go", nil, nil)); err != nil {
		t.Fatal(err)
	}
	if e := receive(t, stays); e.Name != "A" {
		t.Errorf("event %s", e.Name)
	}
}

func TestSubscribe_afterTheEnd_whatCameIsReadThenClosed(t *testing.T) {
	conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) {
		p.Handshake()
		p.Event("SHUTDOWN", nil)
	})
	waitDone(t, conn)
	sub := conn.Subscribe()
	if e := receive(t, sub); e.Name != "SHUTDOWN" {
		t.Errorf("event %s, want SHUTDOWN", e.Name)
	}
	for range 2 {
		select {
		case _, open := <-sub.C():
			if open {
				t.Error("more events than were sent")
			}
		case <-time.After(bound):
			t.Fatal("the subscription stays open after the end")
		}
		sub = conn.Subscribe()
	}
}

func TestEvents_monitorShape_translatedUntilContextEnds(t *testing.T) {
	more := make(chan struct{})
	conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) {
		p.Handshake()
		p.Event("SHUTDOWN", map[string]any{"guest": true, "n": 3})
		<-more
		p.Event("ODD", "no object")
		p.Reply(p.Expect("x"), nil)
		p.Stall()
	})
	ctx, cancel := context.WithCancel(t.Context())
	events, err := conn.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	e := <-events
	if e.Event != "SHUTDOWN" || e.Data["guest"] != true || e.Data["n"] != 3.0 {
		t.Errorf("event %+v", e)
	}
	if e.Timestamp.Seconds != qmptest.EventTime || e.Timestamp.Microseconds != 250000 {
		t.Errorf("timestamp %+v", e.Timestamp)
	}
	close(more)
	if e = <-events; e.Event != "ODD" || e.Data != nil {
		t.Errorf("event %+v", e)
	}
	cancel()
	if _, open := <-events; open {
		t.Error("the channel is open after its context")
	}
	if err := conn.Do(within(t), "x", nil, nil); err != nil {
		t.Errorf("the connection after that: %v", err)
	}
	_, err = conn.Events(ctx)
	wantErr(t, err, context.Canceled)
}
