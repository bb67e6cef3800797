package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/slowfs"
	"github.com/maqet/maqet/manifest"
)

// A shared folder is served by a process of virtiofsd that talks to QEMU by a
// connection which is made before both run, and whose socket has lost its path by
// then. So nobody else can come to it, and it needs nobody to end it: whatever ends QEMU
// closes QEMU's end, and virtiofsd ends upon that.

// share is the virtiofsd of a filesystem of a machine that is about to be started.
type share struct {
	daemon     virtiofsd
	filesystem manifest.Filesystem
	// listener is the socket to which QEMU is connected already, and lock the file that
	// is locked for as long as virtiofsd has it open. Both are nil once it has them.
	listener, lock *os.File
}

// openShare prepares a filesystem's virtiofsd, and is QEMU's end of the connection.
func (l *launch) openShare(ctx context.Context, name string) (*os.File, error) {
	at := slices.IndexFunc(l.vm.Spec.Filesystems, func(f manifest.Filesystem) bool { return f.Name == name })
	if at < 0 {
		return nil, fmt.Errorf("there is no filesystem %q", name)
	}
	daemon, problem, err := l.driver.prober.virtiofsd(ctx)
	if err == nil && problem.Msg != "" {
		err = fmt.Errorf("%s; %s", problem.Msg, problem.Hint)
	}
	if err != nil {
		return nil, err
	}
	s := &share{daemon: daemon, filesystem: l.vm.Spec.Filesystems[at]}
	// The folder itself is shared, and not a link to it, which virtiofsd may not follow.
	path := s.filesystem.Path
	s.filesystem.Path, err = slowfs.Ask(ctx, l.driver.prober.files, path, func() (string, error) { return filepath.EvalSymlinks(path) })
	if err != nil {
		return nil, err
	}
	l.shares = append(l.shares, s) // which closes what is open on failure, too
	layout := l.driver.layout
	if s.lock, err = lockedFile(layout.VirtioFSLock(l.name, name)); err != nil {
		return nil, err
	}
	var end *os.File
	s.listener, end, err = connected(layout.VirtioFSSocket(l.name))
	return end, err
}

// lockedFile makes a file and locks it. The lock is the open file's: it lasts until the
// last process that has inherited it has ended.
func lockedFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600) //nolint:gosec // G304: a file of the layout
	if err != nil {
		return nil, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

// connected makes a listening socket and a connection to it that waits to be accepted.
// Its path is gone when this returns.
func connected(path string) (listener, end *os.File, err error) {
	if listener, err = listen(path); err != nil {
		return nil, nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		end = os.NewFile(uintptr(fd), "QEMU's end")
		err = os.NewSyscallError("connect", unix.Connect(fd, &unix.SockaddrUnix{Name: path}))
	}
	if err = errors.Join(err, os.Remove(path)); err == nil {
		return listener, end, nil
	}
	if end != nil {
		err = errors.Join(err, end.Close())
	}
	return nil, nil, errors.Join(err, listener.Close())
}

// startShares starts all virtiofsd of the machine.
func (l *launch) startShares(ctx context.Context) error {
	if len(l.shares) == 0 {
		return nil
	}
	log, size, err := openLog(l.driver.layout.VirtioFSLog(l.name))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // nothing was written here
	l.sharesLog = size
	for _, s := range l.shares {
		pid, err := s.start(ctx, l.inherited[0], log, l.account)
		if err != nil {
			return err
		}
		l.helpers = append(l.helpers, pid)
	}
	return nil
}

// sharesWords are what virtiofsd has to say to a QEMU that ended since it lost one; empty
// otherwise.
func (l *launch) sharesWords() string {
	if !strings.Contains(string(lastWordsOf(l.driver.layout.QEMULog(l.name), l.record.LogOffset)), driver.DeviceVirtioFS) {
		return ""
	}
	line := lastLine(l.driver.layout.VirtioFSLog(l.name), l.sharesLog)
	if line == "" {
		return "its virtiofsd has ended, and said nothing"
	}
	return "virtiofsd said: " + line + "; see all it said with: maqet logs --virtiofsd " + l.name
}

// start starts virtiofsd, as the user that QEMU runs as.
func (s *share) start(ctx context.Context, null, log *os.File, a *account) (pid int, err error) {
	argv := s.daemon.argv(s.filesystem.Path, s.filesystem.ReadOnly, firstFile)
	attr := &syscall.ProcAttr{
		Dir: "/", Files: []uintptr{null.Fd(), log.Fd(), log.Fd(), s.listener.Fd(), s.lock.Fd()},
		Env: a.environ(os.Environ()), Sys: a.confinable(),
	}
	pidfd := -1
	attr.Sys.PidFD = &pidfd
	run := func() error {
		pid, _, err = syscall.StartProcess(argv[0], argv, attr) //nolint:gosec // G204: the command line is made here
		return err
	}
	if s.daemon.needsView(&s.filesystem) {
		err = inView(s.filesystem.Path, run)
	} else {
		err = run()
	}
	closeErr := s.close()
	if err != nil {
		return 0, fmt.Errorf("filesystem %s: run %s: %w", s.filesystem.Name, argv[0], err)
	}
	// Nobody waits for it, but it is to be reaped.
	k, err := newChild(pid, pidfd)
	if err != nil {
		return pid, errors.Join(err, closeErr)
	}
	go k.reap(context.WithoutCancel(ctx))
	return pid, closeErr
}

// close closes what virtiofsd has not got.
func (s *share) close() error {
	var errs []error
	for _, f := range []*os.File{s.listener, s.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	s.listener, s.lock = nil, nil
	return errors.Join(errs...)
}

// confinable are the attributes of a process that makes itself namespaces.
//
// Root's may. Anybody else's begins in a user namespace in which it may, and in which
// its user is called root and nobody else has a name: on the host it can do what its user
// can, and nothing more.
func (a *account) confinable() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	uid, gid := os.Geteuid(), os.Getegid()
	if a == nil && uid == 0 {
		return attr
	}
	if a != nil {
		uid, gid = a.uid, a.gid
	}
	attr.Cloneflags = unix.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	if a == nil {
		return attr
	}
	attr.GidMappingsEnableSetgroups = true
	attr.Credential = &syscall.Credential{}
	for _, g := range a.groups {
		if g == 0 || g == gid || slices.Contains(attr.Credential.Groups, uint32(g)) { //nolint:gosec // ids have 31 bits here
			continue
		}
		attr.GidMappings = append(attr.GidMappings, syscall.SysProcIDMap{ContainerID: g, HostID: g, Size: 1})
		attr.Credential.Groups = append(attr.Credential.Groups, uint32(g)) //nolint:gosec // as above
	}
	return attr
}

// inView calls fn on a thread to which a folder, with all that is mounted below it, cannot be
// written. So it is for processes that are started there.
func inView(folder string, fn func() error) error {
	return onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		// What is mounted from here on, the host does not see, and the other way round.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		if err := unix.Mount(folder, folder, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", folder, err)
		}
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(unix.AT_FDCWD, folder, unix.AT_RECURSIVE, attr); err != nil {
			return fmt.Errorf("make %s read-only (which takes Linux 5.12 or newer): %w", folder, err)
		}
		return fn()
	})
}

// filesystemsLost looks whether all virtiofsd of the guest are there. Where its lock file is
// gone, nothing is known.
func (o *observation) filesystemsLost() {
	if o.Presence != driver.Alive || o.depth != driver.DepthFull || o.Launched == nil {
		return
	}
	for _, f := range o.Launched.Spec.Filesystems {
		if f.Driver == manifest.FilesystemVirtioFS && isFree(o.driver.layout.VirtioFSLock(o.Name, f.Name)) {
			o.FilesystemsLost = append(o.FilesystemsLost, f.Name)
		}
	}
}

// isFree tells that a file is there and nobody has locked it.
func isFree(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0) //nolint:gosec // G304: a file of the layout
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // nothing was written
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock) == nil && lock.Type == unix.F_UNLCK
}

// confirmScoped is confirm, and has the new processes put into a scope. Virtiofsd has made
// itself a child by the time that QEMU answers, which belongs there as well.
func (l *launch) confirmScoped(ctx context.Context) (*talk, error) {
	if len(l.shares) > 0 {
		t, err := l.confirm(ctx)
		if err == nil {
			l.driver.beginScope(ctx, l.name, l.processes()...).end()
		}
		return t, err
	}
	scope := l.driver.beginScope(ctx, l.name, l.processes()...)
	t, err := l.confirm(ctx)
	if err != nil {
		scope.abandon()
		return nil, err
	}
	scope.end()
	return t, nil
}

// processes are QEMU and all that was started for it, QEMU first.
func (l *launch) processes() []int {
	all := append([]int{l.child.pid}, l.helpers...)
	for i := 1; i < len(all); i++ {
		all = append(all, l.driver.proc.children(all[i])...)
	}
	return all
}

// children are the processes that a process without threads has made; none where the
// kernel does not tell.
func (p procfs) children(pid int) []int {
	text, err := os.ReadFile(p.path(pid, filepath.Join("task", strconv.Itoa(pid), "children")))
	if err != nil {
		return nil
	}
	var all []int
	for word := range strings.FieldsSeq(string(text)) {
		if child, err := strconv.Atoi(word); err == nil {
			all = append(all, child)
		}
	}
	return all
}
