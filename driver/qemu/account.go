package qemu

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/manifest"
)

// account is the user that a machine's QEMU runs as, when that is another than maqet's.
type account struct {
	name, home string
	uid, gid   int
	// groups are all groups of the user, such as kvm.
	groups []int
}

// AccountError is a user that QEMU cannot run as.
type AccountError struct {
	// User is the name in spec.emulator.runAs.
	User string
	// Err is the cause, Hint what to do.
	Err  error
	Hint string
}

// Error is "runAs "name": cause".
func (e *AccountError) Error() string { return fmt.Sprintf("runAs %q: %v", e.User, e.Err) }

// Unwrap is the cause.
func (e *AccountError) Unwrap() error { return e.Err }

// accountOf is the user that a machine's QEMU runs as; nil for maqet's own.
func accountOf(vm *manifest.VirtualMachine) (*account, error) {
	if vm.Spec.Emulator == nil || vm.Spec.Emulator.RunAs == "" {
		return nil, nil //nolint:nilnil // no account is an answer of its own
	}
	name := vm.Spec.Emulator.RunAs
	u, err := user.Lookup(name)
	var unknown user.UnknownUserError
	switch {
	case errors.As(err, &unknown):
		return nil, &AccountError{
			name, errors.New("this host has no such user"),
			"make it with: useradd --system --no-create-home " + name + "; or correct the name",
		}
	case err != nil:
		return nil, &AccountError{name, err, "see whether the host's user database can be read"}
	}
	a := &account{name: u.Username, home: u.HomeDir}
	words, err := u.GroupIds()
	if err != nil {
		return nil, &AccountError{name, fmt.Errorf("its groups: %w", err), "see whether the host's group database can be read"}
	}
	ids := make([]int, 0, len(words)+2)
	for _, word := range append([]string{u.Uid, u.Gid}, words...) {
		id, err := strconv.ParseUint(word, 10, 31)
		if err != nil {
			return nil, &AccountError{name, fmt.Errorf("its id %q is no number", word), "correct its entry in the host's user database"}
		}
		ids = append(ids, int(id))
	}
	a.uid, a.gid, a.groups = ids[0], ids[1], ids[2:]
	switch own := os.Geteuid(); {
	case own == a.uid:
		return nil, nil //nolint:nilnil // it is maqet's own user
	case a.uid == 0:
		return nil, &AccountError{name, errors.New("it is root by another name"), "name a user without rights"}
	case own != 0:
		return nil, &AccountError{name, errors.New("only root can run QEMU as another user"), "run maqet as root or as " + name + ", or leave spec.emulator.runAs out"}
	}
	return a, nil
}

// credential is what the kernel gives QEMU before it runs; nil for maqet's own.
func (a *account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	c := &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)} //nolint:gosec // ids have 31 bits here
	for _, g := range a.groups {
		c.Groups = append(c.Groups, uint32(g)) //nolint:gosec // ids have 31 bits here
	}
	return c
}

// environ is the environment of a QEMU. What a service manager says to maqet is not
// meant for it. A QEMU of another user gets nothing of maqet's but what programs
// need in order to run: there may be secrets among the rest.
func (a *account) environ(own []string) []string {
	managers := []string{"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}
	env := make([]string, 0, len(own)+3)
	for _, pair := range own {
		name, _, _ := strings.Cut(pair, "=")
		switch {
		case slices.Contains(managers, name):
		case a == nil, name == "PATH", name == "LANG", name == "TZ", strings.HasPrefix(name, "LC_"), strings.HasPrefix(name, "QEMU_"):
			env = append(env, pair)
		}
	}
	if a != nil {
		env = append(env, "HOME="+a.home, "USER="+a.name, "LOGNAME="+a.name)
	}
	return env
}

// do calls fn with the rights of the user, on a thread of its own that ends with it;
// nobody else in this process ever has them. A nil account is maqet's own user.
func (a *account) do(fn func() error) error {
	if a == nil {
		return fn()
	}
	return onOwnThread(func() error {
		if err := a.become(); err != nil {
			return err
		}
		return fn()
	})
}

// onOwnThread calls fn on a thread that ends with it, so that what fn changes for its
// thread is nobody else's.
func onOwnThread(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and not unlocked, so that the thread ends
		if unix.Gettid() == unix.Getpid() {
			// The first thread never ends. While it is held here, another one is taken.
			result <- onOwnThread(fn)
			runtime.UnlockOSThread()
			return
		}
		result <- fn()
	}()
	return <-result
}

// become gives this thread the rights of the user. The wrappers in package syscall
// would change all threads.
func (a *account) become() error {
	groups := a.credential().Groups
	var first *uint32
	if len(groups) > 0 {
		first = &groups[0]
	}
	const keep = ^uintptr(0)
	calls := []struct {
		name          string
		trap, a, b, c uintptr
	}{
		{"setresgid", unix.SYS_SETRESGID, keep, uintptr(a.gid), keep},
		{"setresuid", unix.SYS_SETRESUID, keep, uintptr(a.uid), keep},
	}
	//nolint:gosec // G103: the call wants a pointer, and keeps none
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(first)), 0); errno != 0 {
		return os.NewSyscallError("setgroups", errno)
	}
	for _, c := range calls {
		if _, _, errno := unix.RawSyscall(c.trap, c.a, c.b, c.c); errno != 0 {
			return os.NewSyscallError(c.name, errno)
		}
	}
	return nil
}
