package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// jobPeer is a QMP server whose jobs conclude at once, with that error; the guest
// stands still for half a second by its own clock.
func jobPeer(t *testing.T, failure string) (socket string) {
	t.Helper()
	socket, listener := listen(t)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			workOn(conn, failure)
		}
	}()
	return socket
}

func workOn(conn net.Conn, failure string) {
	defer func() { _ = conn.Close() }()
	fmt.Fprintf(conn, "{\"QMP\": {}}\r\n")
	for decoder := json.NewDecoder(conn); ; {
		var c command
		if err := decoder.Decode(&c); err != nil {
			return
		}
		switch {
		case c.Execute == "query-jobs":
			fmt.Fprintf(conn, `{"return": [{"id": "j", "error": %q}]}`, failure)
		case c.Arguments.JobID != "":
			const at = `"timestamp": {"seconds": 7, "microseconds": %d}`
			fmt.Fprintf(conn, `{"event": "STOP", `+at+`}`, 0)
			fmt.Fprintf(conn, `{"event": "JOB_STATUS_CHANGE", "data": {"id": %q, "status": "concluded"}}`, c.Arguments.JobID)
			fmt.Fprintf(conn, `{"return": {}}{"event": "RESUME", `+at+`}`, 500_000)
		default:
			fmt.Fprint(conn, `{"return": {}}`)
		}
	}
}

func TestJobs_concluded_tellsTheFailureOrThePause(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "commands.json")
	text := `[{"execute":"stop"},{"execute":"snapshot-save","arguments":{"job-id":"j","tag":"a"}}]`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run([]string{"jobs", "-f", file, jobPeer(t, "")}, &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != "paused 500ms\n" {
		t.Errorf("printed %q", out.String())
	}
	err := run([]string{"jobs", "-f", file, jobPeer(t, "no room")}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("error %v, want the job's", err)
	}
}
