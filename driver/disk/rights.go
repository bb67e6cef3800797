package disk

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// change runs a qemu-img that writes to the image at path, with the rights of the user
// whose folder that is in.
func (i *Images) change(ctx context.Context, path string, args ...string) error {
	as, err := i.rights(path)
	if err != nil {
		return err
	}
	limited, cancel := i.limit(ctx)
	defer cancel()
	return i.runTool(limited, toolRun{args: args, as: as, stdout: new(strings.Builder)})
}

// rights are those that an image is changed with; nil for maqet's own. The folder of a
// machine whose QEMU runs as another user is that user's own: he can put a link in an
// image's place at any moment, and write a name of any file into its header, such as
// that of an external data file. With his rights qemu-img changes no file that he could
// not change himself.
func (i *Images) rights(path string) (*syscall.Credential, error) {
	rel, err := filepath.Rel(i.machines, path)
	if os.Geteuid() != 0 || i.machines == "" || err != nil || !filepath.IsLocal(rel) {
		return nil, nil //nolint:nilnil // maqet's own
	}
	dir, err := openPath(unix.AT_FDCWD, filepath.Dir(path), unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(dir) }() // nothing was written
	var owner, st unix.Stat_t
	if err := unix.Fstat(dir, &owner); err != nil {
		return nil, err
	}
	if owner.Uid == 0 {
		return nil, nil //nolint:nilnil // maqet's own
	}
	fd, err := openPath(dir, filepath.Base(path), 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1:
		return nil, errors.New("it is a link or no regular file, in a folder of another user: put the file itself there")
	case st.Uid == 0:
		// It was made or moved here since the machine last ran, and would be his at its
		// next start.
		if err := unix.Fchownat(fd, "", int(owner.Uid), int(owner.Gid), unix.AT_EMPTY_PATH); err != nil {
			return nil, &fs.PathError{Op: "chown", Path: path, Err: err}
		}
	}
	return &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}, nil
}

// openPath opens a name in an open folder without following a link there.
func openPath(dir int, name string, flags int) (int, error) {
	fd, err := unix.Openat(dir, name, flags|unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}
