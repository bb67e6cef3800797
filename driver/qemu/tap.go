package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bridgeHelpers are the places where distributions put qemu-bridge-helper.
func bridgeHelpers() []string {
	return []string{"/usr/lib/qemu/qemu-bridge-helper", "/usr/libexec/qemu-bridge-helper"}
}

// BridgeError is a tap that could not be put on a bridge.
type BridgeError struct {
	// Bridge is the bridge's name.
	Bridge string
	// Err is the cause, Hint what to do.
	Err  error
	Hint string
}

// Error is "bridge br0: cause; hint".
func (e *BridgeError) Error() string {
	return "bridge " + e.Bridge + ": " + e.Err.Error() + "; " + e.Hint
}

// Unwrap is the cause.
func (e *BridgeError) Unwrap() error { return e.Err }

// openTap makes a tap on a bridge of the host, through QEMU's own helper: it may do
// so for ordinary users too, as its access list says. QEMU cannot run it, confined
// as it is.
func (d *Driver) openTap(ctx context.Context, bridge string) (*os.File, error) {
	helper, err := d.findHelper()
	if err != nil {
		return nil, &BridgeError{Bridge: bridge, Err: err, Hint: "install QEMU's bridge helper (on Debian and Ubuntu: apt install qemu-system-common)"}
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "bridge helper"), os.NewFile(uintptr(fds[1]), "bridge helper's")
	defer func() { _ = ours.Close() }() // nothing is written to it
	ctx, cancel := context.WithTimeout(ctx, d.timing.Probe)
	defer cancel()
	words, err := runHelper(ctx, helper, bridge, theirs)
	tap, received := receiveTap(ours, bridge)
	switch {
	case err != nil:
		if tap != nil {
			err = errors.Join(err, tap.Close())
		}
		return nil, helperError(ctx, bridge, helper, words, err)
	case received != nil:
		return nil, &BridgeError{Bridge: bridge, Err: fmt.Errorf("%s gave no tap: %w", helper, received), Hint: "check that this is QEMU's helper"}
	}
	return tap, nil
}

// findHelper is the first helper that is there.
func (d *Driver) findHelper() (string, error) {
	for _, path := range d.helpers {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("qemu-bridge-helper is not installed (looked for %s)", strings.Join(d.helpers, " and "))
}

// runHelper runs the helper to its end and returns what it said on stderr. It
// closes theirs.
func runHelper(ctx context.Context, helper, bridge string, theirs *os.File) (string, error) {
	const fd = 3
	var stderr lastWords
	//nolint:gosec // the helper of this host; it is killed below when ctx ends.
	cmd := exec.Command(helper, "--use-vnet", fmt.Sprintf("--fd=%d", fd), "--br="+bridge)
	cmd.Stderr, cmd.ExtraFiles, cmd.WaitDelay = &stderr, []*os.File{theirs}, time.Second
	err := cmd.Start()
	err = errors.Join(err, theirs.Close())
	if err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // it may have ended
	defer stop()
	err = cmd.Wait()
	return stderr.line(), err
}

// receiveTap takes the descriptor that the helper has sent before it ended.
func receiveTap(from *os.File, bridge string) (*os.File, error) {
	data, control := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	var n, controlled int
	var err error
	for {
		n, controlled, _, _, err = unix.Recvmsg(int(from.Fd()), data, control, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:controlled])
	if err != nil || n == 0 || len(messages) != 1 {
		return nil, errors.Join(errors.New("it sent no descriptor"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(errors.New("it sent no descriptor"), err)
	}
	return os.NewFile(uintptr(fds[0]), "tap on "+bridge), nil
}

// helperError says why the helper refused. It knows no exit codes, so the cause is
// told by its words.
func helperError(ctx context.Context, bridge, helper, words string, err error) error {
	e := &BridgeError{Bridge: bridge, Err: err}
	if words != "" {
		e.Err = fmt.Errorf("%s (%w)", words, err)
	}
	const list = "/etc/qemu/bridge.conf"
	said := func(text string) bool { return strings.Contains(words, text) }
	switch {
	case ctx.Err() != nil:
		e.Err, e.Hint = fmt.Errorf("%s did not end in time: %w", helper, context.Cause(ctx)), "see whether the host's network hangs"
	case said("acl"), said("access denied"):
		e.Hint = fmt.Sprintf(`allow the bridge with the line "allow %s" in %s`, bridge, list)
	case said("No such device"), said("does not exist"):
		e.Hint = fmt.Sprintf("make the bridge with: ip link add %s type bridge", bridge)
	case said("not permitted"), said("Permission denied"):
		e.Hint = fmt.Sprintf("let the helper have the right it needs: chmod u+s %s", helper)
	default:
		e.Hint = fmt.Sprintf("try it by hand: %s --br=%s --fd=3", helper, bridge)
	}
	return e
}
