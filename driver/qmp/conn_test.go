package qmp_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/driver/qmp/qmptest"
)

func TestDo_resultAsked_isDecoded(t *testing.T) {
	conn := dial(t, qmp.Options{}, qmptest.Greeted(qmptest.Handlers{
		"query-status": func(qmptest.Request) (any, error) {
			return map[string]any{"status": "running", "running": true}, nil
		},
	}))
	var got struct {
		Status  string
		Running bool
	}
	if err := conn.Do(within(t), "query-status", nil, &got); err != nil {
		t.Fatal(err)
	}
	if got.Status != "running" || !got.Running {
		t.Errorf("got %+v", got)
	}
}

func TestDial_greetedTwiceBeforeTheAnswer_isGreetedOnce(t *testing.T) {
	conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) {
		p.Greet()
		enter := p.Expect("qmp_capabilities")
		p.Greet()
		p.Reply(enter, struct{}{})
		p.Reply(p.Expect("query-status"), struct{}{})
	})
	if err := conn.Do(within(t), "query-status", nil, nil); err != nil {
		t.Fatal(err)
	}
}

func TestDo_greetedAgain_sessionIsOverByThatName(t *testing.T) {
	conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) {
		p.Handshake()
		p.Expect("query-status")
		p.Greet()
		p.Stall()
	})
	if err := conn.Do(within(t), "query-status", nil, nil); !errors.Is(err, qmp.ErrGreetedAgain) || !errors.Is(err, qmp.ErrClosed) {
		t.Errorf("error %v", err)
	}
}

func TestDo_arguments_arriveAsWritten(t *testing.T) {
	type args struct {
		Text   string `json:"text"`
		Number uint64 `json:"number"`
	}
	var nilMap map[string]string
	odd := "a,b=c \"d\" \\ '\n\t é 漢 🐧 <&> \u2028 \ufffd"
	for _, tc := range []struct {
		name string
		args any
		want string
	}{
		{"none", nil, ""},
		{"nil map", nilMap, ""},
		{"struct", args{odd, 1<<64 - 1}, `{"text":` + quoted(t, odd) + `,"number":18446744073709551615}`},
		{"raw", json.RawMessage("{\n \"a\" : 1.0 }\r\n"), `{"a":1.0}`},
		{"escaped pair", json.RawMessage(`{"a":"\ud83d\udc27"}`), `{"a":"\ud83d\udc27"}`},
		{"escaped backslash before ufffd", map[string]string{"a": `\ufffd\u0000`}, `{"a":"\\ufffd\\u0000"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got string
			conn := dial(t, qmp.Options{}, qmptest.Greeted(qmptest.Handlers{
				"x": func(r qmptest.Request) (any, error) { got = string(r.Args); return struct{}{}, nil },
			}))
			if err := conn.Do(within(t), "x", tc.args, nil); err != nil {
				t.Fatal(err)
			}
			if got != tc.want {
				t.Errorf("the peer read %s, want %s", got, tc.want)
			}
		})
	}
}

func quoted(t *testing.T, s string) string {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDo_unsendableCommand_refusedAndConnectionUsable(t *testing.T) {
	conn := dial(t, qmp.Options{}, qmptest.Greeted(qmptest.Handlers{
		"ok": func(qmptest.Request) (any, error) { return nil, nil },
	}))
	for _, tc := range []struct {
		name, command string
		args          any
		want          string
	}{
		{"no name", "", nil, "without a command name"},
		{"array", "x", []int{1}, "no JSON object"},
		{"number", "x", 7, "no JSON object"},
		{"channel", "x", map[string]any{"c": make(chan int)}, "unsupported type"},
		{"NUL", "x", map[string]string{"a": "b\x00c"}, "NUL"},
		{"bytes", "x", map[string]string{"a": "b\xffc"}, "not UTF-8"},
		{"bytes in a key", "x", map[string]string{"\xff": ""}, "not UTF-8"},
		{"bytes in raw", "x", json.RawMessage("{\"a\":\"\xff\"}"), "not UTF-8"},
		{"half a pair", "x", json.RawMessage(`{"a":"\ud83dx"}`), "surrogate"},
		{"half a pair before an escape", "x", json.RawMessage(`{"a":"\ud83d\u0041"}`), "surrogate"},
		{"noncharacter", "x", map[string]string{"a": "\uffff"}, "U+FFFF"},
		{"noncharacter in the middle", "x", map[string]string{"a": "\ufdd0"}, "U+FDD0"},
		{"noncharacter in a name", "x\U0001fffe", nil, "U+1FFFE"},
		{"broken raw", "x", json.RawMessage(`{"a":`), "unexpected end of JSON"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := conn.Do(within(t), tc.command, tc.args, nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v, want %q in it", err, tc.want)
			}
			if err := conn.Do(within(t), "ok", nil, nil); err != nil {
				t.Errorf("the next command: %v", err)
			}
		})
	}
}

func TestDo_replyDoesNotFitResult_errorNamesCommandAndType(t *testing.T) {
	conn := dial(t, qmp.Options{}, qmptest.Greeted(qmptest.Handlers{
		"x": func(qmptest.Request) (any, error) { return []int{1}, nil },
	}))
	var into struct{ A int }
	err := conn.Do(within(t), "x", nil, &into)
	var typeErr *json.UnmarshalTypeError
	if !errors.As(err, &typeErr) || !strings.Contains(err.Error(), "qmp x") {
		t.Errorf("error %v, want a decode error that names the command", err)
	}
	if err := conn.Err(); err != nil {
		t.Errorf("the connection ended over it: %v", err)
	}
}

func TestDo_refused_classAndDescriptionKept(t *testing.T) {
	for _, tc := range []struct {
		name, reply, text string
		want              qmp.Error
	}{
		{
			"class", `"error": {"class": "DeviceNotFound", "desc": "Device 'a' not found"}`,
			"qmp x: Device 'a' not found (DeviceNotFound)",
			qmp.Error{Command: "x", Class: "DeviceNotFound", Desc: "Device 'a' not found"},
		},
		{
			"empty desc", `"error": {"class": "GenericError", "desc": ""}`,
			"qmp x: refused without a description",
			qmp.Error{Command: "x", Class: "GenericError"},
		},
		{"empty error", `"error": {}`, "qmp x: refused without a description", qmp.Error{Command: "x"}},
		{"null error", `"error": null`, "qmp x: refused without a description", qmp.Error{Command: "x"}},
		{
			"error beside return", `"return": {}, "error": {"class": "GenericError", "desc": "no"}`,
			"qmp x: no",
			qmp.Error{Command: "x", Class: "GenericError", Desc: "no"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) {
				p.Handshake()
				p.Line(fmt.Sprintf(`{%s, "id": %s}`, tc.reply, p.Expect("x").ID))
				p.Stall()
			})
			err := conn.Do(within(t), "x", nil, nil)
			var got *qmp.Error
			if !errors.As(err, &got) {
				t.Fatalf("error %v, want a *qmp.Error", err)
			}
			if diff := cmp.Diff(tc.want, *got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if err.Error() != tc.text {
				t.Errorf("text %q, want %q", err, tc.text)
			}
			if got, want := qmp.IsDeviceNotFound(fmt.Errorf("wrapped: %w", err)), tc.want.Class == "DeviceNotFound"; got != want {
				t.Errorf("IsDeviceNotFound %v, want %v", got, want)
			}
		})
	}
}

func TestDo_unknownCommand_isCommandNotFound(t *testing.T) {
	conn := dial(t, qmp.Options{}, qmptest.Greeted(nil))
	err := conn.Do(within(t), "query-future", nil, nil)
	if !qmp.IsCommandNotFound(err) || qmp.IsDeviceNotFound(err) {
		t.Errorf("error %v, want CommandNotFound alone", err)
	}
}

func TestDoAll_someFail_errorsJoinedAndToldApart(t *testing.T) {
	conn := dial(t, qmp.Options{}, qmptest.Greeted(qmptest.Handlers{
		"good": func(qmptest.Request) (any, error) { return 7, nil },
		"bad": func(qmptest.Request) (any, error) {
			return nil, &qmptest.Refusal{Class: "DeviceNotActive", Desc: "asleep"}
		},
	}))
	var n int
	good, bad, odd := qmp.NewCall("good", nil, &n), qmp.NewCall("bad", nil, nil), qmp.NewCall("odd", nil, nil)
	err := conn.DoAll(within(t), good, bad, odd)
	if good.Err() != nil || n != 7 {
		t.Errorf("good: %v, %d", good.Err(), n)
	}
	if !qmp.IsClass(bad.Err(), qmp.ClassDeviceNotActive) || !qmp.IsCommandNotFound(odd.Err()) {
		t.Errorf("bad: %v, odd: %v", bad.Err(), odd.Err())
	}
	for _, one := range []error{bad.Err(), odd.Err()} {
		if !errors.Is(err, one) {
			t.Errorf("joined error %v lacks %v", err, one)
		}
	}
	if err := conn.DoAll(within(t)); err != nil {
		t.Errorf("no calls at all: %v", err)
	}
}

func TestSend_callUsedTwice_refusedAndFirstUseUnharmed(t *testing.T) {
	release := make(chan struct{})
	conn := dial(t, qmp.Options{}, qmptest.Greeted(qmptest.Handlers{
		"x": func(qmptest.Request) (any, error) { <-release; return 1, nil },
	}))
	ctx := within(t)
	var n int
	call, other := qmp.NewCall("x", nil, &n), qmp.NewCall("x", nil, nil)
	if err := conn.Send(ctx, call); err != nil {
		t.Fatal(err)
	}
	if err := conn.Send(ctx, other, call); err == nil || !strings.Contains(err.Error(), "sent already") {
		t.Errorf("error %v, want a refusal", err)
	}
	if other.Err() == nil {
		t.Error("a call of the refused batch is still pending")
	}
	if err := call.Err(); err != nil {
		t.Errorf("the first use failed: %v", err)
	}
	close(release)
	if err := call.Wait(ctx); err != nil || n != 1 {
		t.Errorf("the first use: %v, %d", err, n)
	}
}

func TestDo_hundredCallersAtOnce_eachGetsItsOwnReply(t *testing.T) {
	conn := dial(t, qmp.Options{}, qmptest.Greeted(qmptest.Handlers{
		"echo": func(r qmptest.Request) (any, error) { return r.Args, nil },
	}))
	ctx := within(t)
	var callers sync.WaitGroup
	for i := range 100 {
		callers.Go(func() {
			for j := range 10 {
				want := map[string]int{"i": i, "j": j}
				var got map[string]int
				if err := conn.Do(ctx, "echo", want, &got); err != nil {
					t.Errorf("caller %d: %v", i, err)
					return
				}
				if !cmp.Equal(want, got) {
					t.Errorf("caller %d got %v, want %v", i, got, want)
				}
			}
		})
	}
	callers.Wait()
}

func TestDo_repliesOutOfOrder_matchedByID(t *testing.T) {
	conn := dial(t, qmp.Options{}, func(p *qmptest.Peer) {
		p.Handshake()
		a, b := p.Expect("a"), p.Expect("b")
		p.Reply(b, "b")
		p.Reply(a, "a")
		p.Stall()
	})
	var ra, rb string
	if err := conn.DoAll(within(t), qmp.NewCall("a", nil, &ra), qmp.NewCall("b", nil, &rb)); err != nil {
		t.Fatal(err)
	}
	if ra != "a" || rb != "b" {
		t.Errorf("a got %q, b got %q", ra, rb)
	}
}

func TestClose_called_pendingAndLaterCallsEndAndGoroutinesGo(t *testing.T) {
	before := goleak.IgnoreCurrent()
	conn, err := qmp.Dial(within(t), qmptest.Listen(t, func(p *qmptest.Peer) { p.Handshake(); p.Stall() }), qmp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	events, err := conn.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sub := conn.Subscribe()
	pending := qmp.NewCall("x", nil, nil)
	if err := conn.Send(within(t), pending); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	wantErr(t, pending.Wait(within(t)), qmp.ErrClosed)
	wantErr(t, conn.Do(within(t), "x", nil, nil), qmp.ErrClosed)
	wantErr(t, conn.Err(), qmp.ErrClosed)
	waitDone(t, conn)
	if _, open := <-events; open {
		t.Error("Events is still open")
	}
	if _, open := <-sub.C(); open {
		t.Error("the subscription is still open")
	}
	goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("github.com/maqet/maqet/driver/qmp/qmptest.(*runner).start.func1"),
		goleak.IgnoreAnyFunction("github.com/maqet/maqet/driver/qmp/qmptest.Serve.func1"))
}
