package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
)

func hostOf(ts *testscript.TestScript) *host.Host {
	h, ok := ts.Value("host").(*host.Host)
	if !ok {
		ts.Fatalf("the script has no host")
	}
	return h
}

func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%s: %v", strings.Join(args[1:], " "), err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s: exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually REGEXP COMMAND...")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	if !host.Eventually(host.Settle, func() bool {
		return ts.Exec(args[1], args[2:]...) == nil && want.MatchString(ts.ReadFile("stdout"))
	}) {
		ts.Fatalf("%s: never printed %q", strings.Join(args[1:], " "), args[0])
	}
}

func cmdQEMUs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: qemus N [VM]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	found := hostOf(ts).QEMUs()
	count := 0
	for name, pids := range found {
		if len(args) == 1 || name == args[1] {
			count += len(pids)
		}
	}
	if count != want {
		ts.Fatalf("QEMU processes %v: %d, want %d", found, count, want)
	}
}

func onlyPID(ts *testscript.TestScript, vm string) int {
	pids := hostOf(ts).QEMUs()[vm]
	if len(pids) != 1 {
		ts.Fatalf("machine %s has QEMU processes %v, want exactly one", vm, pids)
	}
	return pids[0]
}

func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: signal SIGNAL VM")
	}
	number := unix.SignalNum(args[0])
	if number == 0 {
		ts.Fatalf("unknown signal %s", args[0])
	}
	pid := onlyPID(ts, args[1])
	ts.Check(syscall.Kill(pid, number))
	if number == syscall.SIGKILL && !host.Eventually(host.Settle, func() bool { return len(hostOf(ts).QEMUs()[args[1]]) == 0 }) {
		ts.Fatalf("QEMU %d of %s outlived SIGKILL", pid, args[1])
	}
}

func cmdPID(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: pid FILE VM")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), fmt.Appendf(nil, "%d\n", onlyPID(ts, args[1])), 0o600))
}

func cmdGuest(ts *testscript.TestScript, tiny, agent guest.Guest, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: guest FILE...")
	}
	for _, file := range args {
		text := strings.NewReplacer("KERNEL", tiny.Kernel, "AGENT_INITRD", agent.Initrd, "INITRD", tiny.Initrd).Replace(ts.ReadFile(file))
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o600))
	}
}

func cmdEchoGuest(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: echoguest FILE")
	}
	ts.Check(guest.WriteEcho(ts.MkAbs(args[0])))
}

// transcript is what a command has printed so far.
type transcript struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (t *transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all.Write(b)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all.String()
}

func cmdInterrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 5 || args[3] != "maqet" {
		ts.Fatalf("usage: interrupt FILE N REGEXP maqet ARGUMENT...")
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	when, err := regexp.Compile("(?m)" + args[2])
	ts.Check(err)
	line := strings.Join(args[3:], " ")

	var printed transcript
	cmd := hostOf(ts).Command(args[4:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), &printed, &printed
	ts.Check(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if !host.Eventually(host.Settle, func() bool { return when.MatchString(printed.String()) }) {
		err := errors.Join(cmd.Process.Kill(), <-ended)
		ts.Fatalf("%s: never printed %q (%v) but:\n%s", line, args[2], err, printed.String())
	}
	ts.Check(cmd.Process.Signal(os.Interrupt))
	if err := <-ended; err != nil && !errors.As(err, new(*exec.ExitError)) {
		ts.Fatalf("%s: %v", line, err)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(printed.String()), 0o600))
	if got := cmd.ProcessState.ExitCode(); got != want {
		ts.Fatalf("%s: exit code %d, want %d, printed:\n%s", line, got, want, printed.String())
	}
}
