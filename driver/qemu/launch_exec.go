package qemu

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// launch is one QEMU being started.
type launch struct {
	driver *Driver
	name   string
	vm     *manifest.VirtualMachine
	cmd    Command
	record *driver.Launched
	// account is the user that QEMU runs as; nil for maqet's own.
	account *account
	// inherited are the descriptors QEMU gets, from standard input on. They are
	// closed as soon as QEMU has them.
	inherited []*os.File
	// conn is connected to QEMU's socket before QEMU runs; nil once qmp has it.
	conn  net.Conn
	child *child
	// tpm is the swtpm that QEMU talks to; nil without one. Helpers are the processes
	// that were started for QEMU.
	tpm     *tpm
	helpers []int
	// shares are the filesystems with a virtiofsd.
	shares []*share
	// sharesLog is how long virtiofsd's log was.
	sharesLog int64
}

// newLaunch makes everything that QEMU inherits, and connects to it.
func (d *Driver) newLaunch(ctx context.Context, vm *manifest.VirtualMachine, cmd Command, record *driver.Launched, a *account) (*launch, error) {
	l := &launch{driver: d, name: vm.Metadata.Name, vm: vm, cmd: cmd, record: record, account: a}
	err := l.open(ctx)
	if err == nil {
		var dialer net.Dialer
		l.conn, err = dialer.DialContext(ctx, "unix", d.layout.CLISocket(l.name))
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// open makes folders, logs, sockets and taps.
func (l *launch) open(ctx context.Context) error {
	d := l.driver
	for _, dir := range []string{d.layout.RunDir(l.name), d.layout.LogDir(l.name)} {
		if err := os.MkdirAll(dir, dirPerm); err != nil {
			return err
		}
	}
	if err := d.takeBack(l.name); err != nil {
		return err
	}
	d.rotateAll(ctx, l.name)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	l.inherited = append(l.inherited, null)
	log, size, err := openLog(d.layout.QEMULog(l.name))
	if err != nil {
		return err
	}
	l.record.LogOffset = size
	// What QEMU prints on standard output, such as an answer to "help", belongs
	// into the log as well.
	l.inherited = append(l.inherited, log, log)
	if s := l.vm.Spec.Serial; s != nil && s.Log {
		// QEMU would make the file readable for whom the umask allows.
		serial, size, err := openLog(d.layout.SerialLog(l.name))
		if err != nil {
			return err
		}
		l.record.SerialOffset = size
		if err := serial.Close(); err != nil {
			return err
		}
	}
	for _, file := range l.cmd.Files {
		f, err := l.openFile(ctx, file)
		if err != nil {
			return err
		}
		l.inherited = append(l.inherited, f)
	}
	return nil
}

// openFile makes one descriptor that QEMU inherits.
func (l *launch) openFile(ctx context.Context, file File) (*os.File, error) {
	at := l.driver.layout
	switch file.Kind {
	case QMPListener:
		return listen(at.QMPSocket(l.name))
	case CLIListener:
		f, err := listen(at.CLISocket(l.name))
		if err == nil {
			l.record.CLISocket = fileID(at.CLISocket(l.name))
		}
		return f, err
	case SerialListener:
		return listen(at.SerialSocket(l.name))
	case AgentListener:
		return listen(at.AgentSocket(l.name))
	case TPMControl:
		var err error
		if l.tpm, err = l.driver.prepareTPM(ctx, l.vm); err != nil {
			return nil, err
		}
		return l.tpm.pair()
	case VirtioFS:
		return l.openShare(ctx, file.Filesystem)
	case Tap:
		for i := range l.vm.Spec.NICs {
			if n := &l.vm.Spec.NICs[i]; n.Name == file.NIC && n.Bridge != nil {
				return l.driver.openTap(ctx, n.Bridge.Name)
			}
		}
		return nil, fmt.Errorf("no nic %q has a bridge", file.NIC)
	default:
		return nil, fmt.Errorf("unknown kind of descriptor %q", file.Kind)
	}
}

// exec writes the launch record and starts QEMU: in a session of its own, so that
// nothing typed at maqet's terminal reaches it, and with no descriptor but those it
// shall have.
func (l *launch) exec(ctx context.Context) error {
	d := l.driver
	l.record.At = d.now().UTC()
	if err := d.writeRunFile(l.name, d.layout.Launched(l.name), l.record); err != nil {
		return err
	}
	if err := d.handOver(l.vm, l.account); err != nil {
		return err
	}
	if err := d.accessible(ctx, l.vm, l.cmd.Argv[0], l.account); err != nil {
		return err
	}
	// What QEMU makes is for its user only, as all that maqet itself makes: the mask is
	// one for the whole process, and stays.
	unix.Umask(0o077)
	// Whoever started maqet may have left it open descriptors that are not marked;
	// QEMU would keep a pipe or a lock of theirs open for days. A kernel before 5.11
	// does not know the call.
	_ = unix.CloseRange(firstFile, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if l.tpm != nil {
		// It lies in wait for QEMU, and ends when QEMU's end of the pair is closed, also
		// when there will be no QEMU.
		pid, err := l.tpm.start(ctx, l.inherited[0], l.inherited[1], l.account)
		if err != nil {
			return err
		}
		l.helpers = append(l.helpers, pid)
	}
	if err := l.startShares(ctx); err != nil {
		return err
	}
	pidfd := -1
	files := make([]uintptr, len(l.inherited))
	for i, f := range l.inherited {
		files[i] = f.Fd()
	}
	// Not os/exec: a QEMU must outlive every context, and needs no pipes. Package os
	// would fork once more, to find out whether the kernel has pidfds.
	pid, _, err := syscall.StartProcess(l.cmd.Argv[0], l.cmd.Argv, &syscall.ProcAttr{ //nolint:gosec // G204: the command line is what this package renders
		Dir: "/", Files: files, Env: l.account.environ(os.Environ()),
		Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd, Credential: l.account.credential()},
	})
	runtime.KeepAlive(l.inherited)
	// Our copies must go, or the end of QEMU would not end the connection.
	closeErr := l.closeInherited()
	if err != nil {
		return fmt.Errorf("run %s: %w", l.cmd.Argv[0], err)
	}
	if err := closeErr; err != nil {
		d.log.WarnContext(ctx, "closing descriptors failed", "vm", l.name, "err", err)
	}
	l.child, err = d.children.adopt(ctx, l.record, pid, pidfd)
	return err
}

// closeInherited closes our copies of what QEMU inherits.
func (l *launch) closeInherited() error {
	var errs []error
	closed := map[*os.File]bool{}
	for _, f := range l.inherited {
		if !closed[f] {
			errs = append(errs, f.Close())
		}
		closed[f] = true
	}
	l.inherited = nil
	return errors.Join(errs...)
}

// close closes what is still open on this side.
func (l *launch) close() {
	_ = l.closeInherited() // nothing was written to them
	_ = l.tpm.close()
	for _, s := range l.shares {
		_ = s.close() // nothing was written to it
	}
	if l.conn != nil {
		_ = l.conn.Close() // nothing was said
	}
}

// maxSocketPath is the longest path that fits sockaddr_un on Linux.
const maxSocketPath = 107

// checkSocketPaths refuses a run dir that is too deep for sockets.
func (d *Driver) checkSocketPaths(name string) error {
	for _, path := range []string{d.layout.QMPSocket(name), d.layout.CLISocket(name), d.layout.SerialSocket(name), d.layout.AgentSocket(name)} {
		if len(path) > maxSocketPath {
			return fail("start", name,
				fmt.Errorf("the socket path %s has %d bytes, and the kernel takes at most %d", path, len(path), maxSocketPath),
				"use a shorter run dir with --run-dir or MAQET_RUN_DIR")
		}
	}
	return nil
}

// backlog is how many clients may wait at a socket for their turn.
const backlog = 64

// listen makes a listening socket that only this user can connect to. It is left in
// its place when the descriptor is closed: QEMU, which inherits it, removes it.
func listen(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		err = fmt.Errorf("bind %s: %w", path, err)
	} else if err = os.Chmod(path, 0o600); err == nil { // its folder is closed to others in the meantime
		err = os.NewSyscallError("listen", unix.Listen(fd, backlog))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openLog opens a log for appending and tells how long it is.
func openLog(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600) //nolint:gosec // a file of the layout
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// markConfirmed remembers that the launched process has answered. Without that mark
// its end reads as that of a start that failed.
func (d *Driver) markConfirmed(name string) error {
	f, err := os.OpenFile(d.layout.Confirmed(name), os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}
