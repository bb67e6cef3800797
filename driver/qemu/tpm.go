package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// A machine's TPM is a process of swtpm that talks to QEMU by a pair of sockets which
// nobody else has. So it needs nobody to end it: whatever ends QEMU closes QEMU's end,
// and swtpm ends upon that, whether maqet lives or not.

// swtpmBinary is the program that emulates a TPM.
const swtpmBinary = "swtpm"

// findSWTPM is swtpm's path.
func findSWTPM(vm *manifest.VirtualMachine) (string, *SpecError) {
	path, err := exec.LookPath(swtpmBinary)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", &SpecError{
			VM: vm.Metadata.Name, Path: "spec.tpm", Msg: "this host has no swtpm, which emulates the TPM",
			Hint: "install the package swtpm, or remove spec.tpm",
		}
	}
	return path, nil
}

// tpm is the swtpm of a machine that is about to be started.
type tpm struct {
	binary, dir string
	// end is swtpm's end of the pair; nil once it has it.
	end *os.File
}

// prepareTPM makes the folder that the TPM is kept in. It is nil for a machine without.
func (d *Driver) prepareTPM(ctx context.Context, vm *manifest.VirtualMachine) (*tpm, error) {
	if vm.Spec.TPM == nil {
		return nil, nil //nolint:nilnil // it has none
	}
	binary, missing := findSWTPM(vm)
	if missing != nil {
		return nil, missing
	}
	t := &tpm{binary: binary, dir: d.layout.TPM(vm.Metadata.Name)}
	if err := os.MkdirAll(t.dir, dirPerm); err != nil {
		return nil, err
	}
	return t, t.awaitFree(ctx, d)
}

// tpmLock is what swtpm holds a lock on while it lives.
func tpmLock(dir string) string { return filepath.Join(dir, ".lock") }

// tpmHolder is the process that has a TPM's state in use; 0 for none.
func tpmHolder(dir string) (pid int, err error) {
	f, err := os.OpenFile(tpmLock(dir), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	// Closing it lets go of no lock, since this process has none.
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, os.NewSyscallError("fcntl", err)
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	return int(lock.Pid), nil
}

// awaitFree waits until the swtpm of the last process has ended, as it does when QEMU
// has, a moment later.
func (t *tpm) awaitFree(ctx context.Context, d *Driver) error {
	ctx, cancel := context.WithTimeout(ctx, d.timing.Quit)
	defer cancel()
	for {
		pid, err := tpmHolder(t.dir)
		if err != nil || pid == 0 {
			return err
		}
		if err := pause(ctx, firstTry); err != nil {
			return fmt.Errorf("the TPM in %s is still in use by process %d, although its QEMU is gone; end that process, then try again", t.dir, pid)
		}
	}
}

// pair makes the two ends, and is QEMU's.
func (t *tpm) pair() (*os.File, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	t.end = os.NewFile(uintptr(ends[1]), "swtpm's end")
	return os.NewFile(uintptr(ends[0]), "QEMU's end"), nil
}

// start starts swtpm, as the user that QEMU runs as. It says what it has to say into
// QEMU's log. It is started in the folder of its state, since it has no way to be told of
// a path with a comma.
func (t *tpm) start(ctx context.Context, null, log *os.File, a *account) (pid int, err error) {
	// It begins in the folder: a comma in a path would end the option.
	argv := []string{
		t.binary, "socket", "--tpm2", "--tpmstate", "dir=.,mode=0600",
		"--ctrl", fmt.Sprintf("type=unixio,clientfd=%d", firstFile), "--terminate",
	}
	files := []uintptr{null.Fd(), log.Fd(), log.Fd(), t.end.Fd()}
	pidfd := -1
	pid, _, err = syscall.StartProcess(t.binary, argv, &syscall.ProcAttr{ //nolint:gosec // G204: the command line is made here
		Dir: t.dir, Files: files, Env: a.environ(os.Environ()),
		Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd, Credential: a.credential()},
	})
	closeErr := t.close()
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", t.binary, err)
	}
	// Nobody waits for it, but it is to be reaped.
	k, err := newChild(pid, pidfd)
	if err != nil {
		return pid, errors.Join(err, closeErr)
	}
	go k.reap(context.WithoutCancel(ctx))
	return pid, closeErr
}

// close closes what swtpm has not got.
func (t *tpm) close() error {
	if t == nil || t.end == nil {
		return nil
	}
	err := t.end.Close()
	t.end = nil
	return err
}

// tpmLost looks whether the guest's TPM is there. One that is being reset may let go of
// its lock for a moment, so it is looked for again before it is missed.
func (o *observation) tpmLost(ctx context.Context) {
	if o.Presence != driver.Alive || o.depth != driver.DepthFull || o.Launched == nil || o.Launched.Spec.TPM == nil {
		return
	}
	for range 2 {
		if pid, err := tpmHolder(o.driver.layout.TPM(o.Name)); err != nil || pid != 0 {
			return
		}
		if pause(ctx, firstTry) != nil {
			return
		}
	}
	pid, err := tpmHolder(o.driver.layout.TPM(o.Name))
	o.TPMLost = err == nil && pid == 0
}
