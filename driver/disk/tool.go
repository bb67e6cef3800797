package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// toolGrace is how long the pipes of a killed qemu-img may stay open.
const toolGrace = time.Second

// run runs qemu-img with args and returns what it wrote on stdout. The whole
// process group is killed when ctx ends or the time for one command is over.
func (i *Images) run(ctx context.Context, args ...string) ([]byte, error) {
	return i.runWith(ctx, nil, args...)
}

// written is by which name qemu-img writes the file that runWith gives it.
const written = "/proc/self/fd/3"

// runWith is run for a qemu-img that has a file open. It writes the file by that: in a
// folder of another user somebody else's may have its name by then.
func (i *Images) runWith(ctx context.Context, file *os.File, args ...string) ([]byte, error) {
	return i.runFor(ctx, i.timing.Image, "image", file, args...)
}

// runLong is runWith for what reads a whole disk.
func (i *Images) runLong(ctx context.Context, file *os.File, args ...string) ([]byte, error) {
	return i.runFor(ctx, i.timing.Backup, "backup", file, args...)
}

// runFor is runWith within the time that has that name in the table.
func (i *Images) runFor(ctx context.Context, limit time.Duration, setting string, file *os.File, args ...string) ([]byte, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit,
			fmt.Errorf("qemu-img took longer than %s (timeout %q): %w", limit, setting, context.DeadlineExceeded))
		defer cancel()
	}
	var stdout bytes.Buffer
	if err := i.runTool(ctx, toolRun{args: args, file: file, stdout: &stdout}); err != nil {
		return nil, err
	}
	return stdout.Bytes(), nil
}

// toolRun is one run of qemu-img.
type toolRun struct {
	args []string
	// file is the file that it has open as written; nil for none.
	file *os.File
	// as are the rights that it has; nil for maqet's own.
	as     *syscall.Credential
	stdout io.Writer
}

// runTool runs qemu-img until it ends, or ctx does.
func (i *Images) runTool(ctx context.Context, run toolRun) error {
	binary, err := i.tool()
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, run.args...) //nolint:gosec // G204: the binary is the operator's choice and no shell is involved
	cmd.Env = append(os.Environ(), "LANG=C", "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = run.stdout, &stderr
	if run.file != nil {
		cmd.ExtraFiles = []*os.File{run.file}
	}
	// A qemu-img must not go on behind the back of whoever comes after a maqet that
	// was killed. The kernel's signal is bound to the thread that forks.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: run.as}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = toolGrace
	if err = cmd.Run(); err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
		return &ToolError{Command: run.args[0], Err: err}
	}
	return toolError(run.args[0], stderr.String(), err)
}

// tool finds qemu-img.
func (i *Images) tool() (string, error) {
	name := i.qemuImg
	if name == "" {
		name = "qemu-img"
	}
	binary, err := exec.LookPath(name)
	if err == nil {
		return binary, nil
	}
	if i.qemuImg != "" || errors.Is(err, exec.ErrDot) {
		return "", fmt.Errorf("%w: %w", ErrNoTool, err)
	}
	return "", fmt.Errorf("%w (not in PATH)", ErrNoTool)
}

// lockWords is qemu-img's complaint about an image that is open elsewhere:
// Failed to get "write" lock, or Failed to get shared "write" lock.
var lockWords = regexp.MustCompile(`Failed to get (shared )?"[a-z ]+" lock$`)

// spaceWords are strerror(ENOSPC), which is all that qemu-img tells of the cause.
const spaceWords = "No space left on device"

// toolError makes an error of what a failed qemu-img wrote. Qemu-img has one exit
// status for everything, so the cause can only be told by its words, which LC_ALL
// keeps in English.
func toolError(command, stderr string, exit error) *ToolError {
	e := &ToolError{Command: command, Err: exit}
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "Is another process using the image") {
			e.Line = line
		}
	}
	switch {
	case lockWords.MatchString(e.Line):
		e.Err = fmt.Errorf("%w: %w", ErrInUse, exit)
	case strings.HasSuffix(e.Line, spaceWords):
		e.Err = fmt.Errorf("%w: %w", syscall.ENOSPC, exit)
	}
	return e
}

// fail makes an Error of err, with the hint that its cause calls for.
func fail(path, op string, err error) error {
	e := &Error{Path: path, Op: op, Err: err}
	switch {
	case errors.Is(err, ErrNoTool):
		e.Hint = "install the package qemu-utils (Debian, Ubuntu), qemu-img (Fedora, Alpine) or qemu-tools (SUSE)"
	case errors.Is(err, ErrInUse):
		e.Hint, e.Err = nameHolders(path, err)
	case errors.Is(err, syscall.ENOSPC):
		e.Hint = "make room on the filesystem of " + filepath.Dir(path)
	case errors.Is(err, os.ErrPermission):
		e.Hint = "run maqet as the user who owns the file"
	case errors.Is(err, context.DeadlineExceeded):
		e.Hint = "see whether the storage hangs, or allow more time with --timeouts image=DURATION"
	}
	return e
}

// absolute makes path absolute. An absolute path is inert in qemu-img's command
// line: it begins neither with '-' nor with what could be a protocol or "json:".
func absolute(op, path string) (string, error) {
	if path == "" || strings.ContainsRune(path, 0) {
		return "", &Error{Path: fmt.Sprintf("%q", path), Op: op, Err: errors.New("this is no path"), Hint: "name a file"}
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", &Error{Path: path, Op: op, Err: err}
	}
	return abs, nil
}

// imageOpts is the value of --image-opts for a qcow2 at an absolute path. Naming
// both drivers leaves nothing to guess; a comma in a value is written twice.
func imageOpts(path string) string {
	protocol := "file"
	if st, err := os.Stat(path); err == nil && st.Mode()&os.ModeDevice != 0 {
		protocol = "host_device"
	}
	return "driver=qcow2,file.driver=" + protocol + ",file.filename=" + strings.ReplaceAll(path, ",", ",,")
}
