package qmp_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	goqmp "github.com/digitalocean/go-qemu/qmp"

	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/driver/qmp/qmptest"
)

func TestRun_command_wholeReplyWithTheCallersID(t *testing.T) {
	var mon goqmp.Monitor = dial(t, qmp.Options{}, qmptest.Greeted(qmptest.Handlers{
		"echo": func(r qmptest.Request) (any, error) { return r.Args, nil },
	}))
	if err := mon.Connect(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, in, want string }{
		{"plain", `{"execute":"echo","arguments":{"a":1}}`, `{"return":{"a":1}}`},
		{"text id", `{"execute":"echo","arguments":{},"id":"mine"}`, `{"return":{},"id":"mine"}`},
		{"numeric id", `{"execute":"echo","arguments":{"n":18446744073709551615},"id":7}`, `{"return":{"n":18446744073709551615},"id":7}`},
		{"spaced", "{ \"execute\": \"echo\",\r\n \"arguments\": {} }\n", `{"return":{}}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := mon.Run([]byte(tc.in))
			if err != nil {
				t.Fatal(err)
			}
			if string(out) != tc.want {
				t.Errorf("got %s, want %s", out, tc.want)
			}
		})
	}
}

func TestRun_notACommand_refusedAndConnectionUsable(t *testing.T) {
	conn := dial(t, qmp.Options{}, qmptest.Greeted(qmptest.Handlers{
		"ok": func(qmptest.Request) (any, error) { return nil, nil },
	}))
	for _, in := range []string{``, `{}`, `[]`, `{"execute":`, `{"execute":1}`, `{"execute":"a"}{"execute":"b"}`, `{"execute":"a","arguments":[]}`} {
		if out, err := conn.Run([]byte(in)); err == nil {
			t.Errorf("Run(%s) returned %s, want an error", in, out)
		}
	}
	if _, err := conn.Run([]byte(`{"execute":"ok"}`)); err != nil {
		t.Error(err)
	}
}

func TestRun_refused_errorHasClassAndCommand(t *testing.T) {
	conn := dial(t, qmp.Options{}, qmptest.Greeted(nil))
	_, err := conn.Run([]byte(`{"execute":"nonsense"}`))
	var qerr *qmp.Error
	if !errors.As(err, &qerr) || qerr.Class != qmp.ClassCommandNotFound || qerr.Command != "nonsense" {
		t.Errorf("error %v, want CommandNotFound of nonsense", err)
	}
}

func TestRun_noReply_givesUpAfterRunTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := pipe(t, qmp.Options{RunTimeout: 7 * time.Second}, func(p *qmptest.Peer) { p.Handshake(); p.Stall() })
		start := time.Now()
		_, err := conn.Run([]byte(`{"execute":"x"}`))
		wantErr(t, err, context.DeadlineExceeded)
		if took := time.Since(start); took != 7*time.Second {
			t.Errorf("took %s, want 7s", took)
		}
	})
}

func TestDisconnect_called_connectSaysSo(t *testing.T) {
	conn := dial(t, qmp.Options{}, qmptest.Greeted(nil))
	if err := conn.Disconnect(); err != nil {
		t.Fatal(err)
	}
	wantErr(t, conn.Connect(), qmp.ErrClosed)
	_, err := conn.Run([]byte(`{"execute":"x"}`))
	wantErr(t, err, qmp.ErrClosed)
	if !strings.Contains(err.Error(), "by this side") {
		t.Errorf("error %q does not say who closed", err)
	}
	events, err := conn.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, open := <-events; open {
		t.Error("Events of an ended connection is open")
	}
}
