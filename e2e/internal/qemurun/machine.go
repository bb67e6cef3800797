package qemurun

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// emulator is the binary every test of this package runs.
const emulator = "qemu-system-x86_64"

// Machine is one running QEMU.
type Machine struct {
	t      testing.TB
	cmd    *exec.Cmd
	stdin  io.Writer
	serial *transcript
	stderr *transcript
	qmp    *client
	exited chan struct{} // closed once QEMU has been waited for
}

// Start runs QEMU with -nodefaults, no display, the first serial port and QMP
// connected to the test, and args.
func Start(t testing.TB, args ...string) *Machine {
	t.Helper()
	socket, conn := qmpSocket(t)
	full := append([]string{
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
		"-chardev", "socket,id=qmp,fd=3,server=on,wait=off", "-mon", "chardev=qmp,mode=control",
	}, args...)
	cmd := exec.Command(emulator, full...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{t: t, cmd: cmd, stdin: stdin, serial: newTranscript(), stderr: newTranscript(), exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = m.serial, m.stderr
	cmd.ExtraFiles = []*os.File{socket}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v; install qemu-system-x86", emulator, err)
	}
	// Our copy must go, or a dead QEMU's connection would never read as closed.
	if err := socket.Close(); err != nil {
		t.Error(err)
	}
	go func() {
		_ = cmd.Wait() // The exit status is read from ProcessState.
		close(m.exited)
	}()
	t.Cleanup(m.kill)
	m.qmp = newClient(conn)
	m.Execute("qmp_capabilities", nil)
	return m
}

// qmpSocket returns a listening socket for QEMU and a connection to it, made
// before QEMU exists: the kernel queues it, so nobody has to poll.
func qmpSocket(t testing.TB) (*os.File, net.Conn) {
	t.Helper()
	// Not t.TempDir: with a long test name a socket's path would not fit its 107 bytes.
	dir, err := os.MkdirTemp("", "qemurun-") //nolint:usetesting // The reason above.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "qmp.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	file, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return file, conn
}

// PID returns the process id of QEMU.
func (m *Machine) PID() int { return m.cmd.Process.Pid }

// Serial returns everything the guest has written to its serial port.
func (m *Machine) Serial() string { return m.serial.text() }

// Stderr returns everything QEMU has complained about.
func (m *Machine) Stderr() string { return m.stderr.text() }

// WaitSerial waits until the serial port has shown text count times at least.
func (m *Machine) WaitSerial(text string, count int, timeout time.Duration) {
	m.t.Helper()
	if !m.serial.wait(text, count, timeout, m.exited) {
		m.fatalf("the serial port did not show %q %d times within %s", text, count, timeout)
	}
}

// Run types a command into the tiny guest's shell and returns what it printed.
func (m *Machine) Run(command string, timeout time.Duration) string {
	m.t.Helper()
	// Typed before the prompt, the echo would land in front of it.
	prompted := func(text string) bool { return strings.HasSuffix(text, "# ") }
	if !m.serial.until(prompted, timeout, m.exited) {
		m.fatalf("the guest showed no prompt for %q within %s", command, timeout)
	}
	from := m.serial.length()
	if _, err := io.WriteString(m.stdin, command+"\n"); err != nil {
		m.fatalf("type %q: %v", command, err)
	}
	answer, ok := m.serial.between(from, command, "[exit ", timeout, m.exited)
	if !ok {
		m.fatalf("the guest did not answer %q within %s", command, timeout)
	}
	return answer
}

// WaitExit waits until QEMU is gone and returns its exit code.
func (m *Machine) WaitExit(timeout time.Duration) int {
	m.t.Helper()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-m.exited:
		return m.cmd.ProcessState.ExitCode()
	case <-timer.C:
		m.fatalf("QEMU did not end within %s", timeout)
		return -1
	}
}

// Running reports whether QEMU has not ended yet.
func (m *Machine) Running() bool {
	select {
	case <-m.exited:
		return false
	default:
		return true
	}
}

func (m *Machine) kill() {
	_ = m.cmd.Process.Kill() // It may have ended; then there is nothing to do.
	<-m.exited
}

func (m *Machine) fatalf(format string, args ...any) {
	m.t.Helper()
	m.t.Logf("stderr of QEMU:\n%s\nend of the serial log:\n%s", m.stderr.text(), tail(m.serial.text(), 4096))
	m.t.Fatalf(format, args...)
}

func tail(s string, n int) string {
	if len(s) > n {
		return s[len(s)-n:]
	}
	return s
}
