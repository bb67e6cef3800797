package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// listen makes a socket whose path is short enough.
func listen(t *testing.T) (socket string, listener *net.UnixListener) {
	t.Helper()
	dir, err := os.MkdirTemp("", "raw") //nolint:usetesting // A long test name would not fit a socket's path.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "q.sock")
	listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return socket, listener
}

// peer is a QMP server whose guest runs from the n-th query-status on.
func peer(t *testing.T, runsFrom int) (socket string, asked <-chan string) {
	t.Helper()
	socket, listener := listen(t)
	commands := make(chan string, 100)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		serve(conn, runsFrom, commands)
		close(commands)
	}()
	return socket, commands
}

// serve answers until the client goes.
func serve(conn net.Conn, runsFrom int, commands chan<- string) {
	defer func() { _ = conn.Close() }()
	fmt.Fprintf(conn, "{\"QMP\": {}}\r\n{\"event\": \"RESUME\"}\r\n")
	asked := 0
	for decoder := json.NewDecoder(conn); ; {
		var c struct {
			Execute string `json:"execute"`
		}
		if err := decoder.Decode(&c); err != nil {
			return
		}
		commands <- c.Execute
		switch c.Execute {
		case "query-status":
			if asked++; asked < runsFrom {
				fmt.Fprintf(conn, "{\"return\": {\"status\": \"prelaunch\"}}\r\n")
			} else {
				fmt.Fprintf(conn, "{\"return\": {\"status\": \"running\"}}\r\n")
			}
		case "refused":
			fmt.Fprintf(conn, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\r\n")
		default:
			fmt.Fprintf(conn, "{\"return\": {}}\r\n")
		}
	}
}

func heard(commands <-chan string) string {
	var all []string
	for c := range commands {
		all = append(all, c)
	}
	return strings.Join(all, " ")
}

func TestAwait_guestNotYetRunning_asksAgain(t *testing.T) {
	t.Parallel()
	socket, asked := peer(t, 3)
	if err := run([]string{"await", socket}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got, want := heard(asked), "qmp_capabilities query-status query-status query-status"; got != want {
		t.Errorf("asked %q, want %q", got, want)
	}
}

func TestAwait_noSocket_endsAtTheDeadline(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "none")
	if err := await(path, time.Now().Add(20*time.Millisecond)); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want one that names %s", err, path)
	}
}

func TestStatus_guestDoesNotRun_isAnError(t *testing.T) {
	t.Parallel()
	socket, _ := peer(t, 2)
	if err := run([]string{"status", socket}, io.Discard); err == nil || !strings.Contains(err.Error(), "prelaunch") {
		t.Errorf("error %v, want one that names the state", err)
	}
}

func TestAsk_pipeline_readsEveryAnswerRefusalsToo(t *testing.T) {
	t.Parallel()
	socket, asked := peer(t, 1)
	file := filepath.Join(t.TempDir(), "commands.json")
	if err := os.WriteFile(file, []byte(`[{"execute":"query-jobs"},{"execute":"refused"},{"execute":"query-status"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"ask", "-f", file, socket}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got, want := heard(asked), "qmp_capabilities query-jobs refused query-status"; got != want {
		t.Errorf("asked %q, want %q", got, want)
	}
}

func TestEnd_serverLetsGo_saysWhenConnectedAndWhenEnded(t *testing.T) {
	t.Parallel()
	socket, listener := listen(t)
	said, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run([]string{"end", socket}, out) }()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "{\"QMP\": {}}\r\n{\"return\": {}}\r\n{\"event\": \"STOP\"}\r\n"); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	if !lines.Scan() || lines.Text() != "connected" {
		t.Errorf("first line %q, want connected", lines.Text())
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() || lines.Text() != "ended" {
		t.Errorf("second line %q, want ended", lines.Text())
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestStart_programCannotBeRun_isAnError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := machine{Argv: []string{filepath.Join(dir, "no-qemu")}, Socket: filepath.Join(dir, "q"), Log: filepath.Join(dir, "log")}
	if err := m.start(time.Now().Add(time.Minute)); err == nil || !strings.Contains(err.Error(), "no-qemu") {
		t.Errorf("error %v, want one that names the program", err)
	}
}

func TestRun_unusableWords_areErrors(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"dance"}, {"ask", "x"}, {"start", "-f", "/does/not/exist"}, {"status", "-j", "0", "x"}} {
		if err := run(args, io.Discard); err == nil {
			t.Errorf("run %q: no error", args)
		}
	}
}
