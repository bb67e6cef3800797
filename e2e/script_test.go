package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
)

// TestScripts runs testdata/script: what a user types, and what they then see.
// Besides testscript's own commands the scripts have:
//
//	code N COMMAND...          run and insist on exit code N
//	eventually REGEXP CMD...   run again until it succeeds and stdout matches
//	qemus N [VM]               insist on N QEMU processes (of VM)
//	signal SIGNAL VM           send a signal to the VM's QEMU
//	pid FILE VM                write the pid of the VM's QEMU into FILE
//	guest FILE...              put the tiny guest's paths for KERNEL and INITRD
//
// and the variables $KERNEL, $INITRD, $STATE, $RUN, and $MAQET_ONLY, a PATH
// with nothing but maqet.
func TestScripts(t *testing.T) {
	tiny := guest.Path(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			h := host.New(env.T().(testing.TB), binary)
			env.Values["host"] = h
			env.Vars = append(env.Vars, h.Env()...)
			env.Setenv("STATE", h.State)
			env.Setenv("RUN", h.Run)
			env.Setenv("KERNEL", tiny.Kernel)
			env.Setenv("INITRD", tiny.Initrd)
			env.Setenv("MAQET_ONLY", filepath.Dir(binary))
			env.Setenv("PATH", filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": cmdCode, "eventually": cmdEventually, "qemus": cmdQEMUs, "signal": cmdSignal, "pid": cmdPID,
			"guest": func(ts *testscript.TestScript, neg bool, args []string) { cmdGuest(ts, tiny, neg, args) },
		},
	})
}

func hostOf(ts *testscript.TestScript) *host.Host { return ts.Value("host").(*host.Host) }

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

func cmdGuest(ts *testscript.TestScript, tiny guest.Guest, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: guest FILE...")
	}
	for _, file := range args {
		text := strings.NewReplacer("KERNEL", tiny.Kernel, "INITRD", tiny.Initrd).Replace(ts.ReadFile(file))
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o600))
	}
}
