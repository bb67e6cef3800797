package host

import (
	"bytes"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Shell types commands into the tiny guest of a machine, through its serial line.
type Shell struct {
	t    testing.TB
	conn net.Conn
	got  bytes.Buffer
	n    int
}

// Shell connects to the serial line of a machine, whose guest must have a shell there
// sooner or later: what is typed before is read when it has come up.
func (h *Host) Shell(t testing.TB, vm string) *Shell {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", filepath.Join(h.Run, vm, "serial.sock"))
	if err != nil {
		t.Fatalf("connect to the serial line of %s: %v", vm, err)
	}
	s := &Shell{t: t, conn: conn}
	t.Cleanup(func() { _ = conn.Close() }) // the machine may have ended
	return s
}

// Close lets go of the serial line, for whoever connects next.
func (s *Shell) Close() {
	s.t.Helper()
	if err := s.conn.Close(); err != nil {
		s.t.Error(err)
	}
}

// Run runs a command in the guest and returns what it printed. A command that fails
// fails the test.
func (s *Shell) Run(command string) string {
	s.t.Helper()
	output, status := s.Try(command)
	if status != "0" {
		s.t.Fatalf("in the guest, %s: exit %s\n%s", command, status, output)
	}
	return output
}

// Try is Run for a command that may fail; the status is its exit code.
func (s *Shell) Try(command string) (output, status string) {
	s.t.Helper()
	begin, end := s.Type(command)
	text := s.Await(end)
	// The terminal shows what is typed, too, but never at the beginning of a line.
	_, text, _ = strings.Cut(text, "\n"+begin+"\n")
	output, status, _ = strings.Cut(text, "\n"+end+" ")
	status, _, _ = strings.Cut(status, "\n")
	return strings.Trim(output, "\n"), status
}

// Type types a command and does not wait for it. Once it is over, the guest has
// written a line that begins with end.
func (s *Shell) Type(command string) (begin, end string) {
	s.t.Helper()
	s.n++
	begin, end = fmt.Sprintf("begin-%d", s.n), fmt.Sprintf("end-%d", s.n)
	if _, err := fmt.Fprintf(s.conn, "echo; echo %s; (%s) 2>&1; s=$?; echo; echo %s $s\n", begin, command, end); err != nil {
		s.t.Fatalf("type %q: %v", command, err)
	}
	return begin, end
}

// Await reads until the guest has written a whole line that begins with the word.
func (s *Shell) Await(word string) string {
	s.t.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(Settle)); err != nil {
		s.t.Fatal(err)
	}
	chunk := make([]byte, 4096)
	for {
		text := strings.ReplaceAll(s.got.String(), "\r", "")
		if at := strings.Index(text, "\n"+word+" "); at >= 0 && strings.Contains(text[at+1:], "\n") {
			return text
		}
		n, err := s.conn.Read(chunk)
		s.got.Write(chunk[:n])
		if err != nil {
			s.t.Fatalf("wait for %q on the serial line: %v; it showed:\n%s", word, err, s.got.String())
		}
	}
}
