package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/internal/layout"
)

// RecordError is a file of a machine's records that cannot be used.
type RecordError struct {
	// Path is the file.
	Path string
	// Err is the cause, Hint what to do.
	Err  error
	Hint string
}

// Error is "path: cause".
func (e *RecordError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap is the cause.
func (e *RecordError) Unwrap() error { return e.Err }

// records are the files of one machine that say what maqet did with it.
type records struct {
	// identity, launched and intent are nil when there is no such file.
	identity *driver.Identity
	launched *driver.Launched
	intent   *driver.Intent
	// confirmed tells that the launched process has answered.
	confirmed bool
	// pid is what the pid file says; 0 without one.
	pid int
}

// uid is the machine's uuid; empty for a machine that has none yet.
func (r *records) uid() string {
	switch {
	case r.launched != nil:
		return r.launched.UID
	case r.identity != nil:
		return r.identity.UID
	default:
		return ""
	}
}

// readRecords reads all records of a machine.
func (d *Driver) readRecords(name string) (*records, error) {
	r := new(records)
	var err error
	if r.identity, err = d.readIdentity(name); err != nil {
		return nil, err
	}
	if r.launched, err = d.readLaunched(name); err != nil {
		return nil, err
	}
	if r.intent, err = readRecordFile[driver.Intent](d.layout.Intent(name), runHint); err != nil {
		return nil, err
	}
	if r.pid, err = readPID(d.layout.PIDFile(name)); err != nil {
		return nil, err
	}
	if r.launched != nil {
		_, err := os.Lstat(d.layout.Confirmed(name))
		r.confirmed = err == nil
	}
	return r, nil
}

// runHint is the remedy for a damaged file in a run dir.
const runHint = "move the file away; the process itself is still found by its uuid"

// readLaunched reads the launch record; nil when there is none.
func (d *Driver) readLaunched(name string) (*driver.Launched, error) {
	path := d.layout.Launched(name)
	l, err := readRecordFile[driver.Launched](path, runHint)
	switch {
	case err != nil || l == nil:
		return nil, err
	case l.Version > driver.LaunchedVersion:
		return nil, newerRecord(path, l.Version, driver.LaunchedVersion)
	case l.UID == "" || l.BootID == "" || argvUUID(l.Argv) != strings.ToLower(l.UID):
		// JSON that says nothing, or something else than maqet wrote, must not make a
		// running machine look like one that ended before this boot.
		return nil, &RecordError{Path: path, Err: errors.New("it is no launch record: uuid, boot id or command line are missing or disagree"), Hint: runHint}
	default:
		return l, nil
	}
}

// readIdentity reads the identity; nil when there is none.
func (d *Driver) readIdentity(name string) (*driver.Identity, error) {
	path := d.layout.Identity(name)
	id, err := readRecordFile[driver.Identity](path, identityHint)
	switch {
	case err != nil || id == nil:
		return nil, err
	case id.Version > driver.IdentityVersion:
		return nil, newerRecord(path, id.Version, driver.IdentityVersion)
	}
	if parsed, err := uuid.Parse(id.UID); err != nil || !strings.EqualFold(parsed.String(), id.UID) {
		// Without this a file that lost its content would be completed with a new uuid,
		// and the guest would wake up on its old disks in another machine.
		return nil, &RecordError{Path: path, Err: fmt.Errorf("%q is no uuid", id.UID), Hint: identityHint}
	}
	return id, nil
}

// identityHint is the remedy for a damaged identity.
const identityHint = "bring the file back from a backup: the guest's uuid, addresses and slots are in it"

func newerRecord(path string, version, known int) error { //nolint:unparam // each record has a format of its own, which are all at 1 now
	return &RecordError{
		Path: path, Err: fmt.Errorf("it has format %d, and this maqet knows formats up to %d", version, known),
		Hint: "use the newer maqet that wrote it",
	}
}

// readRecordFile reads a JSON file; nil when there is none.
func readRecordFile[T any](path, hint string) (*T, error) {
	text, owner, err := readFileOf(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no record is an answer of its own
	}
	if err != nil {
		return nil, &RecordError{Path: path, Err: bare(err), Hint: "make it readable to the user maqet runs as"}
	}
	if own := os.Geteuid(); owner != own && owner != 0 {
		// A QEMU that runs as another user owns the folder, and might have put it there.
		return nil, &RecordError{Path: path, Err: fmt.Errorf("it belongs to the user with the id %d, not to maqet's", owner), Hint: hint}
	}
	var record *T
	if err := json.Unmarshal(text, &record); err != nil {
		return nil, &RecordError{Path: path, Err: err, Hint: hint}
	}
	if record == nil {
		return nil, &RecordError{Path: path, Err: errors.New("it holds null instead of a record"), Hint: hint}
	}
	return record, nil
}

// maxRecord is more than any record has.
const maxRecord = 16 << 20

// bare is an error without the path that it names, for messages that name it already.
func bare(err error) error {
	if withPath, ok := errors.AsType[*fs.PathError](err); ok {
		return withPath.Err
	}
	return err
}

// readPID reads a pid file; 0 when there is none, or when QEMU has not written
// into it yet.
func readPID(path string) (int, error) {
	text, _, err := readFileOf(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, &RecordError{Path: path, Err: bare(err), Hint: "make it readable to the user maqet runs as"}
	}
	word := strings.TrimSpace(string(text))
	if word == "" {
		return 0, nil
	}
	pid, err := strconv.Atoi(word)
	if err != nil || pid <= 0 {
		return 0, &RecordError{Path: path, Err: fmt.Errorf("%q is no pid", word), Hint: runHint}
	}
	return pid, nil
}

// writeRunFile replaces a file in a machine's run dir. It does not wait for the
// disk, since the run dir dies with the boot.
func (d *Driver) writeRunFile(name, path string, record any) error {
	text, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	err = durable.WriteVolatile(path, text, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(d.layout.RunDir(name), dirPerm); err != nil {
			return err
		}
		err = durable.WriteVolatile(path, text, 0)
	}
	return err
}

// updateLaunched changes the launch record of a process that runs. The record is
// written only by those who hold the lock of the machine's cli socket, as the
// caller does; a record that is gone or of another start is left alone.
func (d *Driver) updateLaunched(name string, of *driver.Launched, change func(*driver.Launched)) error {
	current, err := d.readLaunched(name)
	if err != nil || current == nil || current.UID != of.UID || !current.At.Equal(of.At) {
		return err
	}
	change(current)
	change(of)
	text, err := json.Marshal(current)
	if err != nil {
		return fmt.Errorf("encode %s: %w", d.layout.Launched(name), err)
	}
	return durable.WriteVolatile(d.layout.Launched(name), text, 0)
}

// dirPerm is the mode of a machine's folders.
const dirPerm fs.FileMode = 0o700

// removeRun removes everything that maqet and QEMU keep in a machine's run dir,
// and the folder when nothing else is in it.
func (d *Driver) removeRun(name string) error {
	l := d.layout
	dir := l.RunDir(name)
	var errs []error
	// The launch record goes first: without it the rest says nothing.
	for _, path := range []string{
		l.Launched(name), l.Confirmed(name), l.Intent(name), l.Frozen(name), l.LastEvent(name), l.PIDFile(name),
		l.QMPSocket(name), l.CLISocket(name), l.SerialSocket(name), l.AgentSocket(name), l.VirtioFSSocket(name),
	} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		// What a killed writer left beside them, and the locks of filesystems.
		left := strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), ".tmp")
		if left || strings.HasSuffix(e.Name(), layout.VirtioFSLockSuffix) {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	_ = os.Remove(dir) // It stays when somebody else put something into it.
	return errors.Join(errs...)
}
