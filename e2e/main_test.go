package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"github.com/maqet/maqet/e2e/internal/host"
)

// binary is the maqet under test, built once by TestMain.
var binary string //nolint:gochecknoglobals // set once before any test runs

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	if signal.Ignored(syscall.SIGHUP) {
		// Under nohup children would ignore it, too; a signal that is caught is theirs
		// again (execve(2)).
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: qemu-system-x86_64 is not installed; run: make install-deps")
		return 1
	}
	dir, err := os.MkdirTemp("", "maqet-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
		}
	}()
	if binary, err = host.Build(dir, raceBuild); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return m.Run()
}
