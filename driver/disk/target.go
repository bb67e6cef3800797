package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/manifest"
)

// CreateTarget makes an empty qcow2 with mode 0600 that something else is going to fill,
// and returns it open for that. Backing is what it is a difference to, as its header
// names it: a path to another qcow2 that begins with ./ or ../, and is not looked at;
// empty makes it complete in itself. A file that exists is an error.
func (i *Images) CreateTarget(ctx context.Context, path string, size int64, backing string) (_ *os.File, err error) {
	const op = "create"
	path, err = absolute(op, path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600) //nolint:gosec // G304: the caller's own folder
	if err != nil {
		return nil, fail(path, op, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(path))
		}
	}()
	args := []string{"create", "-q", "-f", "qcow2"}
	want := Header{Format: "qcow2", Size: size}
	if backing != "" {
		// QEMU takes what stands before a colon for a protocol, unless a slash comes first.
		if !strings.HasPrefix(backing, "../") && !strings.HasPrefix(backing, "./") {
			return nil, fail(path, op, fmt.Errorf("%q is no path relative to its folder", backing))
		}
		want.Backing, want.BackingFormat = backing, "qcow2"
		args = append(args, "-u", "-b", backing, "-F", "qcow2")
	}
	if _, err := i.runWith(ctx, f, append(args, written, strconv.FormatInt(size, 10))...); err != nil {
		return nil, fail(path, op, err)
	}
	h, err := ReadHeader(path)
	if err != nil {
		return nil, fail(path, op, err)
	}
	if h != want {
		return nil, fail(path, op, fmt.Errorf("qemu-img create: made %+v instead of %+v", h, want))
	}
	return f, nil
}

// Needed is about how many bytes a qcow2 takes that holds the content of an image now,
// which may be in use.
func (i *Images) Needed(ctx context.Context, path string, format manifest.DiskFormat) (int64, error) {
	const op = "measure"
	path, err := absolute(op, path)
	if err != nil {
		return 0, err
	}
	out, err := i.run(ctx, "measure", "-U", "-f", string(format), "-O", "qcow2", "--output=json", path)
	if err != nil {
		return 0, fail(path, op, err)
	}
	var size struct {
		Required int64 `json:"required"`
	}
	if err := json.Unmarshal(out, &size); err != nil {
		return 0, fail(path, op, fmt.Errorf("qemu-img measure: decode: %w", err))
	}
	return size.Required, nil
}

// Reserve takes room for a file that is about to grow, so that it does not run out of it
// halfway. Where the filesystem cannot do that, it is compared with what is free. The
// error wraps ENOSPC when there is too little and says how much there is.
func (i *Images) Reserve(f *os.File, bytes int64) error {
	free, err := i.free(filepath.Dir(f.Name()))
	if err != nil {
		return fail(f.Name(), "reserve", err)
	}
	short := func() error {
		return fail(f.Name(), "reserve", fmt.Errorf("%w: it may need %s, and %s are free",
			syscall.ENOSPC, about(bytes), about(int64(min(free, 1<<62)))))
	}
	if uint64(max(bytes, 0)) > free {
		return short()
	}
	err = ignoringEINTR(func() error { return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, bytes) })
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return short()
	case errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS):
		return nil
	case err != nil:
		return fail(f.Name(), "reserve", err)
	}
	return nil
}

// about is a size for people, in MiB.
func about(bytes int64) string { return fmt.Sprintf("%d MiB", (bytes+1<<20-1)>>20) }

func ignoringEINTR(do func() error) error {
	for {
		if err := do(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// FreeWords say how much room is left for a file, for messages.
func (i *Images) FreeWords(path string) string {
	free, err := i.free(filepath.Dir(path))
	if err != nil {
		return "how much is free is not known"
	}
	return fmt.Sprintf("%s are free in %s", about(int64(min(free, 1<<62))), filepath.Dir(path))
}

// Settle gives back the room that was reserved for a file beyond its end, and returns
// when its content will survive a loss of power.
func Settle(path string) (err error) {
	const op = "write"
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0) //nolint:gosec // G304: a file that was made here
	if err != nil {
		return fail(path, op, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err == nil {
		err = f.Truncate(st.Size())
	}
	if err == nil {
		err = f.Sync()
	}
	return wrap(path, op, err)
}
