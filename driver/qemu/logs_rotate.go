package qemu

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/filelock"
)

const (
	// maxLog is how long a log may become before it is rotated.
	maxLog = 10 << 20
	// keepLogs is how many rotated logs are kept of each.
	keepLogs = 3
)

// RotateLogs copies each of a machine's logs that is above 10 MiB to a numbered
// file and empties it; three of those are kept. QEMU holds its logs open, so they
// cannot be renamed; what it writes between the end of the copying and the emptying,
// a moment, is lost. While somebody visits the machine nothing is done, since the
// visitor does it.
func (d *Driver) RotateLogs(name string) error {
	const op = "rotate the logs of"
	if err := d.usable(name); err != nil {
		return fail(op, name, err, "")
	}
	lock, err := d.locks.TryLock(d.layout.CLILock(name))
	if errors.Is(err, filelock.ErrHeld) {
		return nil
	}
	if err != nil {
		return fail(op, name, err, "")
	}
	return fail(op, name, errors.Join(d.rotate(name), lock.Unlock()), "")
}

// rotate rotates what needs it. The launch record's offsets begin anew with the
// emptied log.
func (d *Driver) rotate(name string) error {
	serial, errSerial := rotateLog(d.layout.SerialLog(name), maxLog)
	qemu, errQEMU := rotateLog(d.layout.QEMULog(name), maxLog)
	_, errVirtioFS := rotateLog(d.layout.VirtioFSLog(name), maxLog)
	err := errors.Join(errSerial, errQEMU, errVirtioFS)
	if !serial && !qemu {
		return err
	}
	record, readErr := d.readLaunched(name)
	if readErr != nil || record == nil {
		return errors.Join(err, readErr)
	}
	return errors.Join(err, d.updateLaunched(name, record, func(l *driver.Launched) {
		if serial {
			l.SerialOffset = 0
		}
		if qemu {
			l.LogOffset = 0
		}
	}))
}

// rotateLog rotates one log that is longer than limit, and tells whether it did.
func rotateLog(path string, limit int64) (done bool, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || info.Size() <= limit {
		return false, err
	}
	for n := keepLogs - 1; n >= 1; n-- {
		if err := os.Rename(numbered(path, n), numbered(path, n+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	if err := copyLog(path, numbered(path, 1)); err != nil {
		return false, fmt.Errorf("rotate %s: %w", path, err)
	}
	if err := os.Truncate(path, 0); err != nil {
		return false, err
	}
	return true, nil
}

func numbered(path string, n int) string { return fmt.Sprintf("%s.%d", path, n) }

// copyLog copies a log until its end, which may move meanwhile.
func copyLog(from, to string) (err error) {
	in, err := os.Open(from) //nolint:gosec // a file of the layout
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // a file of the layout
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}
