package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
)

// echoManifest is a machine whose guest echoes what is typed.
const echoManifest = `apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata: {name: echo}
spec:
  machine: {type: q35}
  memory: {size: 64Mi}
  disks: [{name: boot, file: ./boot.img, format: raw}]
  serial: {log: true}
  readiness: {serial: {match: "^echo guest ready"}}
`

// echoHost is a host on which the echo guest runs.
func echoHost(t *testing.T) *host.Host {
	t.Helper()
	h, dir := host.New(t, binary), t.TempDir()
	if err := guest.WriteEcho(filepath.Join(dir, "boot.img")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "echo.yaml"), []byte(echoManifest), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Must(t, 0, "apply", "-f", dir, "--wait")
	return h
}

// terminal is a pseudo terminal with a command at it.
type terminal struct {
	t          *testing.T
	keys, line *os.File
	shown      transcript
	cmd        *exec.Cmd
	read       chan struct{}
}

// atTerminal starts a command at a terminal of its own.
func atTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	number, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(keys.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, keys: keys, line: line, cmd: cmd, read: make(chan struct{})}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = line, line, line
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(term.read)
		buf := make([]byte, 4<<10)
		for {
			n, err := keys.Read(buf)
			if n, err := term.shown.Write(buf[:n]); err != nil {
				t.Errorf("kept %d bytes: %v", n, err)
			}
			if err != nil {
				return // the other end is closed
			}
		}
	}()
	t.Cleanup(func() {
		if err := line.Close(); err != nil {
			t.Error(err)
		}
		<-term.read
		if err := keys.Close(); err != nil {
			t.Error(err)
		}
	})
	return term
}

// await waits until the terminal shows something.
func (x *terminal) await(pattern string) {
	x.t.Helper()
	re := regexp.MustCompile(pattern)
	if !host.Eventually(host.Settle, func() bool { return re.MatchString(x.shown.String()) }) {
		x.t.Fatalf("the terminal never showed %q, but:\n%s", pattern, x.shown.String())
	}
}

func (x *terminal) press(keys string) {
	x.t.Helper()
	if _, err := x.keys.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// isRaw tells whether the terminal passes on each key as it is.
func (x *terminal) isRaw() bool {
	x.t.Helper()
	now, err := unix.IoctlGetTermios(int(x.line.Fd()), unix.TCGETS)
	if err != nil {
		x.t.Fatal(err)
	}
	return now.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) == 0
}

// end waits for the command, and insists that the terminal is in order again.
func (x *terminal) end(want int) {
	x.t.Helper()
	if err := x.cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		x.t.Fatal(err)
	}
	if got := x.cmd.ProcessState.ExitCode(); got != want {
		x.t.Errorf("exit code %d, want %d; the terminal shows:\n%s", got, want, x.shown.String())
	}
	if x.isRaw() {
		x.t.Error("the terminal is still raw")
	}
}

// TestConsole_terminal_isRestoredOnEveryWayOut sits at one guest again and again. The last
// way out ends the machine.
func TestConsole_terminal_isRestoredOnEveryWayOut(t *testing.T) {
	h := echoHost(t)
	for i, way := range []struct {
		name string
		args []string
		code int
		out  func(x *terminal)
	}{
		{"escape key", nil, 0, func(x *terminal) { x.press("\x1d") }},
		{"another escape key", []string{"--escape", "ctrl-a"}, 0, func(x *terminal) { x.press("\x01") }},
		{"SIGTERM", nil, 130, func(x *terminal) { x.signal(syscall.SIGTERM) }},
		{"SIGHUP", nil, 130, func(x *terminal) { x.signal(syscall.SIGHUP) }},
		{"taken", nil, 1, func(*terminal) { h.Must(t, 0, "console", "echo", "--take", "--send", "mine") }},
		{"the machine ends", nil, 0, func(*terminal) { h.Must(t, 0, "stop", "echo", "--force") }},
	} {
		t.Run(way.name, func(t *testing.T) {
			x := atTerminal(t, h.Command(append([]string{"console", "echo", "--tail", "0"}, way.args...)...))
			x.await("leaves")
			if !host.Eventually(host.Settle, x.isRaw) {
				t.Fatal("the terminal is not raw")
			}
			word := fmt.Sprintf("way-%d", i)
			// Ctrl-C is the guest's, too.
			x.press(word + "\x03\r")
			x.await(word + "\x03")
			way.out(x)
			x.end(way.code)
		})
	}
}

func (x *terminal) signal(s syscall.Signal) {
	x.t.Helper()
	if err := x.cmd.Process.Signal(s); err != nil {
		x.t.Fatal(err)
	}
}

// TestConsole_several_oneTypesAndAllSee has an onlooker who came second, and leaves by
// Ctrl-C without the guest hearing of it.
func TestConsole_several_oneTypesAndAllSee(t *testing.T) {
	h := echoHost(t)
	first := atTerminal(t, h.Command("console", "echo"))
	first.await("echo guest ready")
	second := atTerminal(t, h.Command("console", "echo", "--tail", "-1"))
	second.await("only look on")
	second.await("echo guest ready")
	if !host.Eventually(host.Settle, second.isRaw) {
		t.Fatal("the onlooker's terminal is not raw")
	}
	second.press("unheard")
	first.press("for all\r")
	first.await("for all")
	second.await("for all")
	second.press("\x03")
	second.end(0)
	first.press("\x1d")
	first.end(0)
	if log := h.Must(t, 0, "logs", "echo"); strings.Contains(log, "unheard") || strings.Contains(log, "\x03") {
		t.Errorf("the guest has heard an onlooker:\n%s", log)
	}
}
