package qmp_test

import (
	"testing"

	goqmp "github.com/digitalocean/go-qemu/qmp"

	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/driver/qmp/qmptest"
)

// This file continues the evidence of socketmonitor_test.go with what go-qemu's
// client does to events.

func TestSocketMonitor_eventsNotRead_runAndDisconnectHang(t *testing.T) {
	script := func(p *qmptest.Peer) {
		p.Handshake()
		r := p.Expect("x")
		p.Flood(2)
		p.Reply(r, nil)
		p.Stall()
	}
	mon := socketMonitor(t, script)
	if err := mon.Connect(); err != nil {
		t.Fatal(err)
	}
	events, err := mon.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run := later(func() { _, _ = mon.Run([]byte(`{"execute":"x"}`)) })
	wantHang(t, "Run", run)
	disconnect := later(func() { _ = mon.Disconnect() })
	wantHang(t, "Disconnect", disconnect)
	for range events { // what the missing reader should have done
	}
	wantEnd(t, "Disconnect", disconnect)
	wantEnd(t, "Run", run)

	conn := dial(t, qmp.Options{}, script)
	if _, err := conn.Events(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := conn.Do(within(t), "x", nil, nil); err != nil {
		t.Errorf("Conn: %v", err)
	}
}

func TestSocketMonitor_eventBeforeEvents_isLost(t *testing.T) {
	script := func(p *qmptest.Peer) {
		p.Handshake()
		p.Event("EARLY", nil)
		p.Reply(p.Expect("a"), nil)
		r := p.Expect("b")
		p.Event("LATE", nil)
		p.Reply(r, nil)
		p.Stall()
	}
	first := func(mon goqmp.Monitor) string {
		if _, err := mon.Run([]byte(`{"execute":"a"}`)); err != nil {
			t.Fatal(err)
		}
		events, err := mon.Events(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		run := later(func() { _, _ = mon.Run([]byte(`{"execute":"b"}`)) })
		e := <-events
		wantEnd(t, "Run", run)
		return e.Event
	}
	if got := first(connected(t, script)); got != "LATE" {
		t.Errorf("SocketMonitor's first event is %s; the fault is gone", got)
	}
	if got := first(dial(t, qmp.Options{}, script)); got != "EARLY" {
		t.Errorf("Conn's first event is %s, want EARLY", got)
	}
}

func TestSocketMonitor_bytesBehindTheHandshake_areLost(t *testing.T) {
	// Half an event arrives in one segment with the handshake's reply. The decoder
	// of the handshake keeps it, and the scanner that follows sees the other half.
	const event = `{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}`
	script := func(p *qmptest.Peer) {
		p.Greet()
		id := string(p.Expect("qmp_capabilities").ID)
		if id == "" {
			id = `"none"`
		}
		p.Raw(`{"return": {}, "id": ` + id + "}\r\n" + event[:30])
		r := p.Expect("go")
		p.Line(event[30:])
		p.Reply(r, nil)
		p.Stall()
	}
	mon := connected(t, script)
	events, err := mon.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// If the event were seen, the reply behind it would wait until it is read.
	if _, err := mon.Run([]byte(`{"execute":"go"}`)); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-events:
		t.Errorf("event %s arrived; the fault is gone", e.Event)
	default:
	}

	conn := dial(t, qmp.Options{}, script)
	if err := conn.Do(within(t), "go", nil, nil); err != nil {
		t.Fatal(err)
	}
	if e := receive(t, conn.Subscribe()); e.Name != "STOP" {
		t.Errorf("Conn: event %s, want STOP", e.Name)
	}
}

func TestSocketMonitor_largeIntegerInEvent_losesItsLastDigits(t *testing.T) {
	script := func(p *qmptest.Peer) {
		p.Handshake()
		p.Expect("go")
		p.Event("SIZE", map[string]uint64{"n": 1<<53 + 1})
		p.Stall()
	}
	mon := connected(t, script)
	events, err := mon.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run := later(func() { _, _ = mon.Run([]byte(`{"execute":"go"}`)) })
	if n := (<-events).Data["n"]; n != float64(1<<53) {
		t.Errorf("n is %v; the fault is gone", n)
	}
	_ = mon.Disconnect()
	wantEnd(t, "Run", run)

	conn := dial(t, qmp.Options{}, script)
	if err := conn.Send(within(t), qmp.NewCall("go", nil, nil)); err != nil {
		t.Fatal(err)
	}
	if e := receive(t, conn.Subscribe()); string(e.Data) != `{"n":9007199254740993}` {
		t.Errorf("Conn: data %s", e.Data)
	}
}
