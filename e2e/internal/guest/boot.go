package guest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// emulator runs the guest; it is the only one the guest's kernel is for.
const emulator = "qemu-system-x86_64"

// ErrNotReady is in every error of BootsUnder that says the guest did not come up
// although QEMU was there to run it.
var ErrNotReady = errors.New("the tiny guest did not come up")

// BootsUnder boots the guest under one accelerator ("kvm", "tcg") and returns nil
// once it has printed its marker. That /dev/kvm opens, and even that QEMU starts
// with it, proves nothing: in a nested or confined host Linux may hang under it.
// QEMU is gone when BootsUnder returns.
func (g Guest) BootsUnder(ctx context.Context, accel string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	cmd := exec.Command(emulator,
		"-nodefaults", "-no-user-config", "-display", "none",
		"-machine", "q35", "-accel", accel, "-m", "128",
		"-kernel", g.Kernel, "-initrd", g.Initrd, "-append", g.Cmdline,
		"-serial", "stdio", "-no-reboot")
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	serial, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("boot under %s: %w", accel, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("boot under %s: %w; install qemu-system-x86", accel, err)
	}
	found := make(chan bool, 1)
	go func() { found <- awaitLine(serial, g.Marker) }()

	var ready bool
	select {
	case ready = <-found:
		_ = cmd.Process.Kill()
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		<-found // The pipe must be read to its end before Wait closes it.
	}
	_ = cmd.Wait() // It was killed or has ended by itself; the status says nothing new.
	if ready {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("boot under %s within %s: %w: %w", accel, timeout, ErrNotReady, err)
	}
	return fmt.Errorf("boot under %s: %w: QEMU ended: %s", accel, ErrNotReady, strings.TrimSpace(complaint.String()))
}

// awaitLine reports whether a line containing text comes before the end.
func awaitLine(r io.Reader, text string) bool {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if strings.Contains(lines.Text(), text) {
			return true
		}
	}
	return false
}
