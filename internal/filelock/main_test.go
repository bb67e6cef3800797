package filelock_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/maqet/maqet/internal/filelock"
)

// patience bounds every wait of these tests; none of them takes that long.
const patience = 30 * time.Second

// The test binary runs itself as another process when this names a role.
const roleVariable = "FILELOCK_TEST_ROLE"

func TestMain(m *testing.M) {
	var err error
	switch role := os.Getenv(roleVariable); role {
	case "":
		goleak.VerifyTestMain(m)
		return
	case "hold":
		err = hold(os.Args[1])
	case "count":
		err = count(os.Args[1], os.Args[2])
	default:
		err = fmt.Errorf("unknown role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// hold takes a lock, says so, and keeps it until its input ends.
func hold(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, err := filelock.New().Lock(ctx, path)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "held")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return l.Unlock()
}

// count adds to the number in the file path+".count", under the lock, so many times.
func count(path, times string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	locks := filelock.New()
	for range n {
		l, err := locks.Lock(ctx, path)
		if err != nil {
			return err
		}
		if err := add(path + ".count"); err != nil {
			return err
		}
		if err := l.Unlock(); err != nil {
			return err
		}
	}
	return nil
}

// add is deliberately a read and a write that another process can come between.
func add(path string) error {
	n := readCount(path)
	return os.WriteFile(path, []byte(strconv.Itoa(n+1)), 0o600) //nolint:gosec // the test's own file.
}

func readCount(path string) int {
	text, err := os.ReadFile(path) //nolint:gosec // the test's own file.
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(string(text))
	if err != nil {
		return -1 << 30
	}
	return n
}

// process is this test binary, running as another process.
type process struct {
	*exec.Cmd
	stdin  io.Closer
	stdout *bufio.Reader
}

func start(t *testing.T, role string, args ...string) *process {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...) //nolint:gosec // this test binary itself.
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &process{cmd, stdin, bufio.NewReader(stdout)}
}

// startHolder is another process that has the lock.
func startHolder(t *testing.T, path string) *process {
	t.Helper()
	p := start(t, "hold", path)
	line, err := p.stdout.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "held" {
		t.Fatalf("the other process said %q (%v), want held", line, err)
	}
	return p
}

// release lets the process end in order.
func (p *process) release(t *testing.T) {
	t.Helper()
	if err := p.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
}

// kill ends the process by SIGKILL.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait() // reports the kill
}

func lockPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "locks", "vm-web.lock")
}

func patiently(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func mustLock(t *testing.T, m *filelock.Manager, path string) *filelock.Lock {
	t.Helper()
	l, err := m.Lock(patiently(t), path)
	if err != nil {
		t.Fatalf("Lock: %v", err)
	}
	return l
}

func mustUnlock(t *testing.T, l *filelock.Lock) {
	t.Helper()
	if err := l.Unlock(); err != nil {
		t.Fatalf("Unlock: %v", err)
	}
}
