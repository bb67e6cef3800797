package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/manifest"
)

const (
	sectorSize = 512
	// spaceReserve is what must be free beyond a new image's metadata, so that
	// creating a disk is not what fills a filesystem to the last block.
	spaceReserve = 64 << 20
	// emptyImage is what an empty qcow2 takes besides its L1 table: header,
	// refcount table and first refcount block, one cluster of 64 KiB each.
	emptyImage = 3 << 16
	// bytesPerL1 is what one 8-byte entry of the L1 table covers with clusters of 64 KiB.
	bytesPerL1 = 512 << 20

	tempPrefix = ".new-"
	createLock = ".create.lock"
)

// Create makes an empty qcow2 of the given size at path, with mode 0600 and, where
// it is missing, its folder with mode 0700. A file that exists is left as it is
// and is no error, whatever it holds.
//
// The image is made under a temporary name in the same folder, synced, and renamed
// without overwriting. Creations in one folder take turns by a lock file, so any
// temporary file found there was left by a run that was killed, and is removed.
func (i *Images) Create(ctx context.Context, path string, size manifest.Quantity) error {
	const op = "create"
	path, err := absolute(op, path)
	if err != nil {
		return err
	}
	if done, err := existing(path); done || err != nil {
		return wrap(path, op, err)
	}
	if size <= 0 || size.Bytes()%sectorSize != 0 {
		return &Error{
			Path: path, Op: op, Err: fmt.Errorf("%d bytes is no size of a disk", size.Bytes()),
			Hint: "use a multiple of " + strconv.Itoa(sectorSize) + " bytes",
		}
	}
	unlock, err := i.lockFolder(ctx, path, op)
	if err != nil {
		return err
	}
	defer unlock()
	return wrap(path, op, i.createLocked(ctx, path, size.Bytes()))
}

// makeFolder makes a machine's folder durably, unless it is there.
func makeFolder(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(dir))
}

// lockFolder makes the folder of a path, and waits for the right to create images in it.
func (i *Images) lockFolder(ctx context.Context, path, op string) (unlock func(), err error) {
	dir := filepath.Dir(path)
	if err := makeFolder(dir); err != nil {
		return nil, fail(path, op, err)
	}
	if limit := i.timing.Lock; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	lock, err := i.locks.Lock(ctx, filepath.Join(dir, createLock))
	if err != nil {
		return nil, &Error{Path: path, Op: op, Err: fmt.Errorf("another process makes a disk here: %w", err)}
	}
	return func() { _ = lock.Unlock() }, nil // the kernel frees it all the same
}

// createLocked creates while the folder's lock is held.
func (i *Images) createLocked(ctx context.Context, path string, size int64) error {
	dir := filepath.Dir(path)
	if err := sweep(dir); err != nil {
		return err
	}
	if done, err := existing(path); done || err != nil {
		return err
	}
	if err := i.checkSpace(dir, size); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, tempPrefix+"*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // gone already once it was renamed
	defer func() { _ = temp.Close() }()
	// The file exists with mode 0600 before qemu-img writes into it: qemu-img's own
	// new files would be readable for everybody.
	if _, err := i.runWith(ctx, temp, "create", "-q", "-f", "qcow2", written, strconv.FormatInt(size, 10)); err != nil {
		return err
	}
	if err := verifyQcow2(temp, size); err != nil {
		return err
	}
	if err := temp.Sync(); err != nil {
		return err
	}
	if err := renameNew(temp.Name(), path); err != nil {
		return err
	}
	if err := durable.SyncDir(dir); err != nil {
		return err
	}
	i.log.InfoContext(ctx, "disk created", "path", path, "size", size)
	return nil
}

// existing tells whether something is at path already. Only a folder is an error.
func existing(path string) (bool, error) {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case st.IsDir():
		return false, errors.New("a folder is in the place of the image")
	default:
		return true, nil
	}
}

// sweep removes the temporary files of creations that were killed.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) || !e.Type().IsRegular() {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// checkSpace refuses when there is no room for the image's metadata and the reserve.
func (i *Images) checkSpace(dir string, size int64) error {
	free, err := i.free(dir)
	if err != nil {
		return err
	}
	need := uint64(emptyImage + spaceReserve + (size/bytesPerL1+1)*8) //nolint:gosec // size is positive
	if free >= need {
		return nil
	}
	return fmt.Errorf("%w: a new disk needs %d KiB (metadata and a reserve of %d MiB), and %d KiB are free",
		syscall.ENOSPC, need>>10, spaceReserve>>20, free>>10)
}

// verifyQcow2 looks whether f really is a qcow2 of the size that was asked for.
func verifyQcow2(f *os.File, size int64) error {
	var header [32]byte
	if _, err := f.ReadAt(header[:], 0); err != nil {
		return fmt.Errorf("read back the header: %w", err)
	}
	if string(header[:4]) != "QFI\xfb" {
		return fmt.Errorf("qemu-img create: wrote no qcow2: %w", ErrNotQcow2)
	}
	if got := binary.BigEndian.Uint64(header[24:]); got != uint64(size) { //nolint:gosec // size is positive
		return fmt.Errorf("qemu-img create: made %d bytes instead of %d", got, size)
	}
	return nil
}

// renameNew renames from to to unless something is there already, which is then
// what counts.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// Some network filesystems know no RENAME_NOREPLACE; a hard link does not
		// overwrite either.
		err = os.Link(from, to)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("rename to %s: %w", to, err)
	}
	return nil
}

// wrap is fail that lets nil and an Error of this package pass.
func wrap(path, op string, err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	return fail(path, op, err)
}
