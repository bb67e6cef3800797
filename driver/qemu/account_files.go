package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// passable is what the folders above a machine's own need in addition when another
// user runs its QEMU: he passes through, and lists nothing.
const passable fs.FileMode = 0o011

// handOver gives the user what QEMU needs: the machine's run dir, its disks and its
// serial log. Without an account they are maqet's own again. It is done anew at each
// start, since the user may have changed. The run dir comes last, when all else in
// it is made.
func (d *Driver) handOver(vm *manifest.VirtualMachine, a *account) error {
	if os.Geteuid() != 0 {
		return nil // all is this user's, and he could give nothing away
	}
	name := vm.Metadata.Name
	paths := []string{d.layout.DiskDir(name)}
	for i := range vm.Spec.Disks {
		if disk := &vm.Spec.Disks[i]; disk.IsMade() {
			paths = append(paths, d.layout.Disk(name, disk.Name))
		}
	}
	if kind := driver.FirmwareKindOf(&vm.Spec); kind != "" {
		paths = append(paths, d.layout.NVRAM(name, string(kind)))
	}
	if vm.Spec.CloudInit != nil {
		paths = append(paths, d.layout.Seed(name))
	}
	if vm.Spec.TPM != nil {
		uid, gid := os.Geteuid(), os.Getegid()
		if a != nil {
			uid, gid = a.uid, a.gid
		}
		if err := giveFolder(d.layout.TPM(name), uid, gid); err != nil {
			return err
		}
	}
	if s := vm.Spec.Serial; s != nil && s.Log {
		paths = append(paths, d.layout.SerialLog(name))
	}
	paths = append(paths, d.layout.RunDir(name))
	if a == nil {
		return reclaim(paths)
	}
	if err := errors.Join(d.openParents(name), d.openBases(vm)); err != nil {
		return err
	}
	for _, path := range paths {
		if err := give(path, a.uid, a.gid); err != nil {
			return err
		}
	}
	return nil
}

// reclaim makes maqet's own again what another user had. Where somebody has put a
// link or a device in a disk's place, that is his to look after.
func reclaim(paths []string) error {
	for _, path := range paths {
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() && !info.IsDir() {
			continue // what is missing, QEMU will tell of
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
			if err := give(path, os.Geteuid(), os.Getegid()); err != nil {
				return err
			}
		}
	}
	return nil
}

// openParents lets other users pass through the folders above the machine's own.
func (d *Driver) openParents(name string) error {
	l := d.layout
	for _, dir := range []string{l.State, filepath.Dir(l.DiskDir(name)), filepath.Dir(l.LogDir(name)), l.LogDir(name), l.Run} {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode()&passable != passable {
			if err := os.Chmod(dir, info.Mode().Perm()|passable); err != nil {
				return err
			}
		}
	}
	return nil
}

// give makes a file or folder the user's own, and in no case what a link leads to:
// whoever owned its folder before may have put one there.
func give(path string, uid, gid int) error { return giveAt(unix.AT_FDCWD, path, path, uid, gid) }

// giveFolder gives a folder with the files in it. The folder lies in one that may be the
// user's already, who can put a link in its place at any time: what is in it is reached
// through the folder itself, not by its path.
func giveFolder(path string, uid, gid int) error {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0) //nolint:gosec // G304: a folder of the layout
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // it was only read
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	fd := int(dir.Fd())
	for _, name := range append([]string{"."}, names...) {
		if err := giveAt(fd, name, filepath.Join(path, name), uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// giveAt is give for a name in an open folder; path is the whole path, for messages.
func giveAt(dir int, name, path string, uid, gid int) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { _ = f.Close() }() // it was not written to
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	kind := stat.Mode & unix.S_IFMT
	switch {
	case kind != unix.S_IFDIR && (kind != unix.S_IFREG || stat.Nlink != 1):
		return fmt.Errorf("%s is a link or no regular file, so it is not given to another user: put the file itself there", path)
	case int(stat.Uid) == uid && int(stat.Gid) == gid:
		return nil
	}
	if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return &fs.PathError{Op: "chown", Path: path, Err: err}
	}
	return nil
}

// takeBack makes the machine's run dir maqet's own while files are made in it, so that
// nobody can put links in their way.
func (d *Driver) takeBack(name string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return give(d.layout.RunDir(name), os.Geteuid(), os.Getegid())
}

// accessible finds what the user of another account may not use of what QEMU will
// open. It is asked before each such start, for QEMU's own words name no user.
func (d *Driver) accessible(ctx context.Context, vm *manifest.VirtualMachine, binary string, a *account) error {
	if a == nil {
		return nil
	}
	c := &check{vm: vm, account: a, files: d.prober.files}
	c.checkFiles(ctx)
	if len(c.findings) > 0 {
		f := c.findings[0]
		return &AccountError{a.name, errors.New(f.Path + ": " + f.Msg), f.Hint}
	}
	for _, way := range []struct {
		path string
		mode uint32
	}{
		{binary, unix.R_OK | unix.X_OK},
		{d.layout.RunDir(vm.Metadata.Name), unix.W_OK | unix.X_OK},
		{d.layout.DiskDir(vm.Metadata.Name), unix.X_OK},
	} {
		if err := a.access(way.path, way.mode); err != nil {
			hint := fmt.Sprintf("let %s pass through the folders above it, or choose other folders with --state-dir and --run-dir", a.name)
			return &AccountError{a.name, fmt.Errorf("it cannot use %s: %w", way.path, err), hint}
		}
	}
	return nil
}

// access tells whether the user may use a file in that way.
func (a *account) access(path string, mode uint32) error {
	return a.do(func() error { return unix.Faccessat(unix.AT_FDCWD, path, mode, unix.AT_EACCESS) })
}
