package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/e2e/internal/host"
	"github.com/maqet/maqet/internal/layout"
)

// virtiofsds are the processes that share folders with a machine: those which have the
// lock of one of its filesystems open, of any where none is named.
func virtiofsds(ts *testscript.TestScript, vm, filesystem string) (pids []int) {
	locks := filepath.Join(hostOf(ts).Run, vm, filesystem)
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	ts.Check(err)
	for _, link := range links {
		path, err := os.Readlink(link)
		path = strings.TrimSuffix(path, " (deleted)")
		if err != nil || !strings.HasPrefix(path, locks) || !strings.HasSuffix(path, layout.VirtioFSLockSuffix) {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(link, "/")[2])
		ts.Check(err)
		if pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

func cmdEndVirtiofsd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: endvirtiofsd FILESYSTEM VM")
	}
	pids := virtiofsds(ts, args[1], args[0])
	if len(pids) == 0 {
		ts.Fatalf("nobody shares filesystem %s of %s", args[0], args[1])
	}
	for _, pid := range pids {
		// The second of a pair may have followed the first.
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
			ts.Fatalf("end virtiofsd %d: %v", pid, err)
		}
	}
	awaitNoVirtiofsd(ts, args[1], args[0])
}

func cmdNoVirtiofsd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: novirtiofsd VM")
	}
	awaitNoVirtiofsd(ts, args[0], "")
}

func awaitNoVirtiofsd(ts *testscript.TestScript, vm, filesystem string) {
	if !host.Eventually(host.Settle, func() bool { return len(virtiofsds(ts, vm, filesystem)) == 0 }) {
		ts.Fatalf("virtiofsd of %s does not end: %v", vm, virtiofsds(ts, vm, filesystem))
	}
}
