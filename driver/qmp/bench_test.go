package qmp_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/driver/qmp/qmptest"
)

func benchConn(b *testing.B) *qmp.Conn {
	b.Helper()
	big := json.RawMessage(`"` + strings.Repeat("x", 200_000) + `"`)
	return dial(b, qmp.Options{}, qmptest.Greeted(qmptest.Handlers{
		"query-status": func(qmptest.Request) (any, error) {
			return map[string]any{"status": "running", "running": true}, nil
		},
		"big": func(qmptest.Request) (any, error) { return big, nil },
	}))
}

// BenchmarkConn_Do is one round trip over a unix socket, the scripted peer's own
// work included.
func BenchmarkConn_Do(b *testing.B) {
	conn := benchConn(b)
	var status struct{ Status string }
	b.ReportAllocs()
	for b.Loop() {
		if err := conn.Do(b.Context(), "query-status", nil, &status); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConn_DoAll is seven commands in one write.
func BenchmarkConn_DoAll(b *testing.B) {
	conn := benchConn(b)
	b.ReportAllocs()
	for b.Loop() {
		calls := make([]*qmp.Call, 7)
		for i := range calls {
			calls[i] = qmp.NewCall("query-status", nil, nil)
		}
		if err := conn.DoAll(b.Context(), calls...); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConn_DoBig is a reply of the size of query-qmp-schema's.
func BenchmarkConn_DoBig(b *testing.B) {
	conn := benchConn(b)
	b.ReportAllocs()
	for b.Loop() {
		var text string
		if err := conn.Do(b.Context(), "big", nil, &text); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDial is connecting, handshake and closing.
func BenchmarkDial(b *testing.B) {
	path := qmptest.Listen(b, qmptest.Greeted(nil))
	b.ReportAllocs()
	for b.Loop() {
		conn, err := qmp.Dial(b.Context(), path, qmp.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
