package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serveQMP answers every line on a socket as QEMU would that knows no command.
func serveQMP(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mqb") //nolint:usetesting // A long test name would not fit a socket's path.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "cli.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					if _, err := fmt.Fprintf(conn, "{\"return\": {}}\r\n"); err != nil {
						return
					}
				}
			}()
		}
	}()
	return path
}

// say sends lines on a connection of its own and waits for as many answers.
func say(t *testing.T, path string, lines ...string) error {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(strings.Join(lines, "\n") + "\n")); err != nil {
		return err
	}
	answers := bufio.NewScanner(conn)
	for range lines {
		if !answers.Scan() {
			return errors.Join(errors.New("an answer is missing"), answers.Err())
		}
	}
	return nil
}

func TestOverhear_twoVisits_commandsWithoutHandshake(t *testing.T) {
	t.Parallel()
	path := serveQMP(t)
	commands, err := overhear(path, func() error {
		return errors.Join(
			say(t, path, `{"execute":"qmp_capabilities"}`, `{"execute":"query-status","id":"1"}`),
			say(t, path, `{"execute":"qmp_capabilities"}`, `{"execute":"qom-get","arguments":{"path":"/machine"}}`),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"execute":"query-status","id":"1"} {"execute":"qom-get","arguments":{"path":"/machine"}}`
	var got []string
	for _, c := range commands {
		got = append(got, string(c))
	}
	if strings.Join(got, " ") != want {
		t.Errorf("overheard %s, want %s", got, want)
	}
	// The real socket is back in its place.
	if err := say(t, path, `{"execute":"query-status"}`); err != nil {
		t.Errorf("ask afterwards: %v", err)
	}
}

func TestTap_commandAfterTheMark_isWaitedFor(t *testing.T) {
	t.Parallel()
	path := serveQMP(t)
	ear, err := listenIn(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := say(t, path, `{"execute":"stop"}`); err != nil {
		t.Error(err)
	}
	if err := ear.await(t.Context(), 0, "stop"); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := ear.await(short, ear.mark(), "stop"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the end of the wait: it came before the mark", err)
	}
	if err := ear.close(); err != nil {
		t.Error(err)
	}
}

func TestOverhear_nothingAsked_isAnError(t *testing.T) {
	t.Parallel()
	path := serveQMP(t)
	if _, err := overhear(path, func() error { return nil }); !errors.Is(err, errSilence) {
		t.Errorf("error %v, want %v", err, errSilence)
	}
}

func TestOverhear_theirFailure_isReturnedAndTheSocketPutBack(t *testing.T) {
	t.Parallel()
	path := serveQMP(t)
	if _, err := overhear(path, func() error { return errDiary }); !errors.Is(err, errDiary) {
		t.Errorf("error %v, want %v", err, errDiary)
	}
	if err := say(t, path, `{"execute":"query-status"}`); err != nil {
		t.Errorf("ask afterwards: %v", err)
	}
}
