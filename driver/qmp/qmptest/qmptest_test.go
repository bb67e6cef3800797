package qmptest_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/maqet/maqet/driver/qmp/qmptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client is a QMP client of the simplest kind: one line out, one line in.
type client struct {
	t  *testing.T
	nc net.Conn
	in *bufio.Reader
}

func newClient(t *testing.T, nc net.Conn) *client {
	t.Helper()
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return &client{t: t, nc: nc, in: bufio.NewReader(nc)}
}

func dial(t *testing.T, path string) *client {
	t.Helper()
	nc, err := new(net.Dialer).DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, nc)
}

func (c *client) send(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.nc, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) want(line string) {
	c.t.Helper()
	got, err := c.in.ReadString('\n')
	if err != nil || got != line+"\r\n" {
		c.t.Fatalf("read %q, %v, want %q", got, err, line)
	}
}

func (c *client) wantEOF() {
	c.t.Helper()
	if b, err := c.in.ReadByte(); !errors.Is(err, io.EOF) {
		c.t.Fatalf("read %q, %v, want the end", b, err)
	}
}

func TestPeer_scriptOverPipe_saysWhatItWasTold(t *testing.T) {
	c := newClient(t, qmptest.Pipe(t, func(p *qmptest.Peer) {
		p.Handshake()
		r := p.Expect("a")
		if string(r.Args) != `{"x":1}` {
			t.Errorf("arguments %s", r.Args)
		}
		p.Event("STOP", map[string]int{"n": 1})
		p.Reply(r, []int{1})
		p.Fail(p.Expect("b"), "GenericError", "no")
		p.Oversized(p.Expect("c"), 40)
		p.Flood(2)
	}))
	c.want(qmptest.Greeting)
	c.send(`{"execute":"qmp_capabilities"}`)
	c.want(`{"return":{}}`)
	c.send(`{"execute":"a","arguments":{"x":1},"id":7}`)
	c.want(`{"timestamp":{"seconds":1700000000,"microseconds":250000},"event":"STOP","data":{"n":1}}`)
	c.want(`{"return":[1],"id":7}`)
	c.send(`{"execute":"b","id":"x"}`)
	c.want(`{"id":"x","error":{"class":"GenericError","desc":"no"}}`)
	c.send(`{"execute":"c","id":"y"}`)
	c.want(`{"return": "` + strings.Repeat("x", 40-len(`{"return": "", "id": "y"}`)) + `", "id": "y"}`)
	for _, n := range []string{"0", "1"} {
		c.want(`{"timestamp":{"seconds":1700000000,"microseconds":250000},"event":"FLOOD","data":{"n":` + n + `}}`)
	}
	c.wantEOF()
}

func TestServe_handlers_answerByName(t *testing.T) {
	c := dial(t, qmptest.Listen(t, qmptest.Greeted(qmptest.Handlers{
		"echo": func(r qmptest.Request) (any, error) { return r.Args, nil },
		"class": func(qmptest.Request) (any, error) {
			return nil, &qmptest.Refusal{Class: "DeviceNotFound", Desc: "gone"}
		},
		"broken": func(qmptest.Request) (any, error) { return nil, errors.New("no") },
	})))
	c.want(qmptest.Greeting)
	for _, tc := range [][2]string{
		{`{"execute":"qmp_capabilities"}`, `{"return":{}}`},
		{`{"execute":"echo","arguments":{"a":[1]}}`, `{"return":{"a":[1]}}`},
		{`{"execute":"class"}`, `{"error":{"class":"DeviceNotFound","desc":"gone"}}`},
		{`{"execute":"broken"}`, `{"error":{"class":"GenericError","desc":"no"}}`},
		{`{"execute":"odd"}`, `{"error":{"class":"CommandNotFound","desc":"The command odd has not been found"}}`},
	} {
		c.send(tc[0])
		c.want(tc[1])
	}
}

func TestListen_severalConnections_scriptsInTurnThenTheLast(t *testing.T) {
	path := qmptest.Listen(t, func(p *qmptest.Peer) { p.Line("one") }, func(p *qmptest.Peer) { p.Line("last") })
	for _, want := range []string{"one", "last", "last"} {
		c := dial(t, path)
		c.want(want)
		c.wantEOF()
	}
}

func TestReset_clientHasWritten_getsConnectionReset(t *testing.T) {
	c := dial(t, qmptest.Listen(t, func(p *qmptest.Peer) { p.Reset() }))
	c.send("anything")
	if _, err := c.in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("error %v, want ECONNRESET", err)
	}
}

// recorder is a testing.TB that keeps failures to itself.
type recorder struct {
	testing.TB
	failed chan string
	ends   []func()
}

func (r *recorder) Errorf(format string, _ ...any) { r.failed <- format }
func (r *recorder) Cleanup(fn func())              { r.ends = append(r.ends, fn) }

func TestExpect_otherCommand_testFailsAndConnectionCloses(t *testing.T) {
	rec := &recorder{TB: t, failed: make(chan string, 10)}
	c := newClient(t, qmptest.Pipe(rec, func(p *qmptest.Peer) {
		p.Expect("right")
		p.Line("never sent")
	}))
	c.send(`{"execute":"wrong"}`)
	c.wantEOF()
	for _, fn := range rec.ends {
		fn()
	}
	select {
	case text := <-rec.failed:
		if !strings.Contains(text, "want %q") {
			t.Errorf("the failure says %q", text)
		}
	default:
		t.Error("the wrong command went unnoticed")
	}
}

func TestStall_testEnds_scriptEndsSilently(t *testing.T) {
	for name, script := range map[string]qmptest.Script{
		"stall":      func(p *qmptest.Peer) { p.Stall() },
		"hang":       func(p *qmptest.Peer) { p.Hang(nil) },
		"expect":     func(p *qmptest.Peer) { p.Expect("never") },
		"read bytes": func(p *qmptest.Peer) { p.ReadBytes(10) },
		"write":      func(p *qmptest.Peer) { p.Line("nobody reads a pipe") },
	} {
		t.Run(name, func(t *testing.T) {
			rec := &recorder{TB: t, failed: make(chan string, 10)}
			nc := qmptest.Pipe(rec, script)
			for _, fn := range rec.ends {
				fn()
			}
			_ = nc.Close()
			if len(rec.failed) > 0 {
				t.Errorf("the script complained: %s", <-rec.failed)
			}
		})
	}
}

func TestGreeting_isJSON(t *testing.T) {
	if !json.Valid([]byte(qmptest.Greeting)) {
		t.Error("the greeting is no JSON")
	}
}
