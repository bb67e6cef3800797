package qmp_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	goqmp "github.com/digitalocean/go-qemu/qmp"

	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/driver/qmp/qmptest"
)

// The tests in this file are evidence, not wishes: they run go-qemu's own
// SocketMonitor against the scripted peer and pass while its faults are there.
// When one of them fails, the fault is gone, and the decision record
// docs/decisions/0001-own-qmp-transport.md is to be looked at again. Beside each
// fault stands what Conn does with the very same peer.

// silence is how long a test waits before it says that a call hangs. Nothing
// else can be waited for: the fault is that nothing happens.
const silence = 300 * time.Millisecond

// socketMonitor dials the script with go-qemu's client, without Connect.
func socketMonitor(t *testing.T, script qmptest.Script) *goqmp.SocketMonitor {
	t.Helper()
	mon, err := goqmp.NewSocketMonitor("unix", qmptest.Listen(t, script), silence)
	if err != nil {
		t.Fatal(err)
	}
	return mon
}

// connected is socketMonitor after Connect, disconnected at the end.
func connected(t *testing.T, script qmptest.Script) *goqmp.SocketMonitor {
	t.Helper()
	mon := socketMonitor(t, script)
	if err := mon.Connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mon.Disconnect() }) // the script may have closed first
	return mon
}

// later runs fn and returns a channel for its end.
func later(fn func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	return done
}

// wantHang fails if done ends before the silence does.
func wantHang(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
		t.Errorf("%s returned; the fault is gone", what)
	case <-time.After(silence):
	}
}

// wantEnd waits for a call that was unblocked, so that no goroutine is left.
func wantEnd(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(bound):
		t.Fatalf("%s cannot be unblocked", what)
	}
}

func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// aliasScript answers with 3 kB and sends 25 kB of events at once behind it.
func aliasScript(rounds int) qmptest.Script {
	reply := `{"return": "` + strings.Repeat("a", 3000) + `", "id": %s}` + "\r\n"
	event := `{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "NOISE", "data": {"x": "` + strings.Repeat("b", 250) + `"}}` + "\r\n"
	return func(p *qmptest.Peer) {
		p.Handshake()
		for range rounds {
			id := string(p.Expect("big").ID)
			if id == "" {
				id = `"none"`
			}
			p.Raw(fmt.Sprintf(reply, id) + strings.Repeat(event, 80))
		}
		p.Stall()
	}
}

func TestSocketMonitor_eventsBehindAReply_replyIsDamaged(t *testing.T) {
	if raceDetector() {
		t.Skip("the race detector would report go-qemu's data race, which is what this test shows")
	}
	const rounds = 2000
	mon := connected(t, aliasScript(rounds))
	var damaged, panics int
	for range rounds {
		whole, panicked := runBig(mon)
		if !whole {
			damaged++
		}
		if panicked {
			panics++
		}
	}
	if damaged == 0 {
		t.Errorf("none of %d replies was damaged; the fault is gone", rounds)
	}
	t.Logf("%d of %d replies damaged, %d of them by a panic in encoding/json", damaged, rounds, panics)
}

// runBig runs one command and reports whether its reply is what the peer sent.
// The buffer changes while encoding/json reads it, which may even make it panic.
func runBig(mon goqmp.Monitor) (whole, panicked bool) {
	defer func() {
		if recover() != nil {
			whole, panicked = false, true
		}
	}()
	out, err := mon.Run([]byte(`{"execute":"big"}`))
	var r struct{ Return string }
	whole = err == nil && json.Unmarshal(out, &r) == nil && r.Return == strings.Repeat("a", 3000)
	return whole, false
}

func TestConn_eventsBehindAReply_replyIsWhole(t *testing.T) {
	const rounds = 300
	conn := dial(t, qmp.Options{}, aliasScript(rounds))
	for i := range rounds {
		if whole, _ := runBig(conn); !whole {
			t.Fatalf("reply %d is damaged", i)
		}
	}
}

func TestSocketMonitor_replyOver64KiB_killsTheMonitor(t *testing.T) {
	script := func(p *qmptest.Peer) {
		p.Handshake()
		r := p.Expect("query-qmp-schema")
		if r.ID == nil {
			r.ID = json.RawMessage(`"none"`)
		}
		p.Oversized(r, 207_000)
		p.Serve(qmptest.Handlers{"ok": func(qmptest.Request) (any, error) { return nil, nil }})
	}
	mon := connected(t, script)
	if _, err := mon.Run([]byte(`{"execute":"query-qmp-schema"}`)); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("error %v, want token too long; the fault is gone", err)
	}
	if _, err := mon.Run([]byte(`{"execute":"ok"}`)); err == nil {
		t.Error("the monitor works after that; the fault is gone")
	}

	conn := dial(t, qmp.Options{}, script)
	if err := conn.Do(within(t), "query-qmp-schema", nil, nil); err != nil {
		t.Errorf("Conn: %v", err)
	}
	if err := conn.Do(within(t), "ok", nil, nil); err != nil {
		t.Errorf("Conn after that: %v", err)
	}
}

func TestSocketMonitor_peerSilent_connectHangsBeyondDialTimeout(t *testing.T) {
	mon := socketMonitor(t, func(p *qmptest.Peer) { p.Stall() })
	var err error
	done := later(func() { err = mon.Connect() })
	wantHang(t, "Connect", done)
	_ = mon.Disconnect() // closes the socket, which is all that helps
	wantEnd(t, "Connect", done)
	if err == nil {
		t.Error("Connect succeeded")
	}
}

func TestSocketMonitor_replyMissing_everyOtherCallerWaitsToo(t *testing.T) {
	script := func(p *qmptest.Peer) {
		p.Handshake()
		p.Expect("wedged")
		p.Serve(qmptest.Handlers{"ok": func(qmptest.Request) (any, error) { return nil, nil }})
	}
	mon := connected(t, script)
	wedged := later(func() { _, _ = mon.Run([]byte(`{"execute":"wedged"}`)) })
	wantHang(t, "Run without a reply", wedged)
	other := later(func() { _, _ = mon.Run([]byte(`{"execute":"ok"}`)) })
	wantHang(t, "Run of another caller", other)
	_ = mon.Disconnect()
	wantEnd(t, "the first Run", wedged)
	wantEnd(t, "the second Run", other)

	conn := dial(t, qmp.Options{}, script)
	if err := conn.Send(within(t), qmp.NewCall("wedged", nil, nil)); err != nil {
		t.Fatal(err)
	}
	if err := conn.Do(within(t), "ok", nil, nil); err != nil {
		t.Errorf("Conn: %v", err)
	}
}

func TestSocketMonitor_numericID_breaksTheReply(t *testing.T) {
	h := qmptest.Greeted(qmptest.Handlers{"ok": func(qmptest.Request) (any, error) { return nil, nil }})
	_, err := connected(t, h).Run([]byte(`{"execute":"ok","id":7}`))
	if _, is := errors.AsType[*json.UnmarshalTypeError](err); !is {
		t.Errorf("error %v, want a decode error; the fault is gone", err)
	}
}

func TestSocketMonitor_runBeforeConnect_hangs(t *testing.T) {
	mon := socketMonitor(t, func(p *qmptest.Peer) { p.Greet(); p.Stall() })
	// A nil channel never becomes ready, so this goroutine cannot be ended; it is
	// the one leak that TestMain is told of.
	wantHang(t, "Run", later(func() { _, _ = mon.Run([]byte(`{"execute":"x"}`)) }))
	_ = mon.Disconnect()
}

func TestSocketMonitor_peerClosesMidRun_errorIsAboutJSON(t *testing.T) {
	script := func(p *qmptest.Peer) { p.Handshake(); p.Expect("x") }
	_, err := connected(t, script).Run([]byte(`{"execute":"x"}`))
	if _, is := errors.AsType[*json.SyntaxError](err); !is {
		t.Errorf("error %v, want a *json.SyntaxError; the fault is gone", err)
	}
	_, err = dial(t, qmp.Options{}, script).Run([]byte(`{"execute":"x"}`))
	wantErr(t, err, qmp.ErrClosed)
}

func TestSocketMonitor_refusal_classIsLostAndEmptyDescIsSuccess(t *testing.T) {
	script := func(p *qmptest.Peer) {
		p.Handshake()
		p.Fail(p.Expect("a"), "DeviceNotFound", "Device 'x' not found")
		p.Fail(p.Expect("b"), "GenericError", "")
		p.Stall()
	}
	mon := connected(t, script)
	if _, err := mon.Run([]byte(`{"execute":"a"}`)); err == nil || strings.Contains(fmt.Sprintf("%#v", err), "DeviceNotFound") {
		t.Errorf("error %#v, want one without its class; the fault is gone", err)
	}
	if _, err := mon.Run([]byte(`{"execute":"b"}`)); err != nil {
		t.Errorf("an error without description is %v, want success; the fault is gone", err)
	}

	conn := dial(t, qmp.Options{}, script)
	if _, err := conn.Run([]byte(`{"execute":"a"}`)); !qmp.IsDeviceNotFound(err) {
		t.Errorf("Conn: %v, want DeviceNotFound", err)
	}
	if _, err := conn.Run([]byte(`{"execute":"b"}`)); !qmp.IsClass(err, qmp.ClassGenericError) {
		t.Errorf("Conn: %v, want a GenericError", err)
	}
}

func TestSocketMonitor_garbage_isSkippedAndRunWaitsOn(t *testing.T) {
	script := func(p *qmptest.Peer) {
		p.Handshake()
		p.Expect("x")
		p.Line(`{"return": `)
		p.Stall()
	}
	mon := connected(t, script)
	run := later(func() { _, _ = mon.Run([]byte(`{"execute":"x"}`)) })
	wantHang(t, "Run", run)
	_ = mon.Disconnect()
	wantEnd(t, "Run", run)

	_, err := dial(t, qmp.Options{}, script).Run([]byte(`{"execute":"x"}`))
	if _, is := errors.AsType[*qmp.ProtocolError](err); !is {
		t.Errorf("Conn: %v, want a *ProtocolError", err)
	}
}
