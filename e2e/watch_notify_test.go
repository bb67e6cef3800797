package e2e

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/maqet/maqet/e2e/internal/host"
)

// manager is what a watch believes to be systemd.
type manager struct {
	path string
	mu   sync.Mutex
	told []string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "mqn") //nolint:usetesting // its path may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{path: filepath.Join(dir, "notify")}
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 1<<16)
		for {
			n, err := socket.Read(buf)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.told = append(m.told, string(buf[:n]))
			m.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		if err := errors.Join(socket.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
		<-ended
	})
	return m
}

// all are the messages so far, one after the other, but for the watchdog's.
func (m *manager) all() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(slices.DeleteFunc(slices.Clone(m.told), func(s string) bool { return s == fed }), "\n--\n")
}

// fed is what feeds the watchdog.
const fed = "WATCHDOG=1"

// feeds is how often the watchdog was fed.
func (m *manager) feeds() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, s := range m.told {
		if s == fed {
			n++
		}
	}
	return n
}

func (m *manager) hears(t *testing.T, want string) {
	t.Helper()
	re := regexp.MustCompile("(?m)" + want)
	if !host.Eventually(host.Settle, func() bool { return re.MatchString(m.all()) }) {
		t.Fatalf("the service manager was never told %q but:\n%s", want, m.all())
	}
}

func TestWatch_underAServiceManager_tellsHowItIs(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	w := newWatching(t, 2)
	cmd := w.Command("watch", w.dir, "--timeouts", quick)
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=200000")
	w.watch = w.WatchCommand(t, cmd)
	m.hears(t, `^READY=1\nSTATUS=`)
	m.hears(t, `^STATUS=2 machines, 2 Ready$`)
	deadline(t, "the watchdog is fed", func() bool { return m.feeds() >= 3 })
	if n := strings.Count(m.all(), "READY=1"); n != 1 {
		t.Errorf("told %d times that it is ready:\n%s", n, m.all())
	}

	w.put("broken.yaml", "kind: [")
	m.hears(t, `^STATUS=2 machines, 2 Ready, 1 fault in the manifests, ManifestsIncomplete$`)
	w.remove("broken.yaml")

	// A reload ends when all was looked at: systemctl reload waits for that.
	w.watch.Signal(t, syscall.SIGHUP)
	m.hears(t, `RELOADING=1\nMONOTONIC_USEC=\d+\n--\n((STATUS=.*|--)\n)*READY=1\nSTATUS=2 machines, 2 Ready`)

	if code := w.watch.End(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	m.hears(t, `^STOPPING=1$`)
	if n := len(w.QEMUs()); n != 2 {
		t.Errorf("%d guests run after the watch", n)
	}
}

// TestWatch_guestsOfAService_doNotSpeakForIt looks at what QEMU is told of its
// surroundings.
func TestWatch_guestsOfAService_doNotSpeakForIt(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	w := newWatching(t, 1)
	cmd := w.Command("watch", w.dir, "--timeouts", quick)
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path)
	w.watch = w.WatchCommand(t, cmd)
	pid := w.running(1)["vm0"]
	env, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "environ"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(env), "NOTIFY_SOCKET") {
		t.Errorf("QEMU may speak to the service manager in the watch's name: %q", env)
	}
}
