package backups

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/durable"
)

// Names in a target.
const (
	markFile = ".maqet-backup"
	// manifestFile is JSON, and not called so: a target may lie in a folder of maqet's own
	// manifests, of which every .json file is read.
	manifestFile = "manifest"
	// begunFile is what is known of a run that goes on.
	begunFile = "begun"
	// brokenFile says why a run cannot be used.
	brokenFile = "broken"
	imageExt   = ".qcow2"
)

// The causes of an Error.
var (
	// ErrNoTarget is a target that is no folder.
	ErrNoTarget = errors.New("the target is no folder that is there")
	// ErrVanished is a target that is not the folder that was used before.
	ErrVanished = errors.New("the target is not the folder that backups went to before")
	// ErrNoRun is a run that is not there.
	ErrNoRun = errors.New("there is no such backup")
)

// Error is a target, or something in it, that cannot be used.
type Error struct {
	Path string
	Err  error
	Hint string
}

// Error is "PATH: cause; hint".
func (e *Error) Error() string {
	text := e.Path + ": " + e.Err.Error()
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Folder is the part of a target that is one machine's.
type Folder struct {
	target, vm, uid8 string
	// mark is the target's.
	mark string
}

// Open opens a target for the backups of a machine. Mark is what it was marked with when
// it was first used: another one, or none, is [ErrVanished]. Empty takes the mark that is
// there, or makes one.
func Open(target, vm, uid, mark string) (*Folder, error) {
	f := newFolder(target, vm, uid)
	found, err := f.readMark()
	switch {
	case err != nil:
		return nil, err
	case mark != "" && found != mark:
		what := "it has no file " + markFile
		if found != "" {
			what = "its file " + markFile + " names another one"
		}
		return nil, &Error{
			Path: target, Err: fmt.Errorf("%w: %s", ErrVanished, what),
			Hint: "mount what belongs there; if this is the right one, say: maqet backup now " + vm + " --accept-target",
		}
	case found == "":
		if found, err = f.makeMark(); err != nil {
			return nil, err
		}
	}
	f.mark = found
	return f, nil
}

// Look opens a target for reading, whatever it is marked with.
func Look(target, vm, uid string) (*Folder, error) {
	f := newFolder(target, vm, uid)
	_, err := f.readMark()
	return f, err
}

func newFolder(target, vm, uid string) *Folder {
	short, _, _ := strings.Cut(uid, "-")
	return &Folder{target: target, vm: vm, uid8: short}
}

// Mark is what the target is marked with.
func (f *Folder) Mark() string { return f.mark }

// Check tells whether the target is still the one that was opened.
func (f *Folder) Check() error {
	again, err := Open(f.target, f.vm, f.uid8, f.mark)
	if err == nil && again.mark != f.mark {
		err = &Error{Path: f.target, Err: ErrVanished}
	}
	return err
}

// readMark reads the target's mark; empty when it has none.
func (f *Folder) readMark() (string, error) {
	st, err := os.Stat(f.target)
	switch {
	case err != nil:
		return "", &Error{Path: f.target, Err: fmt.Errorf("%w: %w", ErrNoTarget, err), Hint: "make the folder, or mount what belongs there"}
	case !st.IsDir():
		return "", &Error{Path: f.target, Err: ErrNoTarget, Hint: "name a folder"}
	}
	text, err := readSmall(filepath.Join(f.target, markFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", &Error{Path: f.target, Err: err}
	}
	return strings.TrimSpace(string(text)), nil
}

// makeMark marks a target. Of several that do so at once, one wins.
func (f *Folder) makeMark() (string, error) {
	err := durable.Create(filepath.Join(f.target, markFile), []byte(strings.ToLower(rand.Text())+"\n"), 0)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", &Error{Path: f.target, Err: err, Hint: "let maqet's user write there"}
	}
	return f.readMark()
}

// readSmall reads a regular file of at most 1 MiB, and follows no link.
func readSmall(path string) (_ []byte, err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0) //nolint:gosec // G304: within the target
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if st, err := file.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is no file", path))
	}
	return io.ReadAll(io.LimitReader(file, 1<<20))
}

// dir is the machine's folder.
func (f *Folder) dir() string { return filepath.Join(f.target, f.vm+"-"+f.uid8) }

// Path is the folder of a run.
func (f *Folder) Path(run string) string { return filepath.Join(f.dir(), run) }

var uidSyntax = regexp.MustCompile(`^[0-9a-f]{8}$`)

// NewRun names a run of now.
func NewRun(now time.Time) string {
	var b [2]byte
	_, _ = rand.Read(b[:]) // it never fails
	return now.UTC().Format("20060102T150405Z") + "-" + hex.EncodeToString(b[:])
}

// Runs are the complete runs of this machine, oldest first.
func (f *Folder) Runs() ([]driver.BackupRun, error) { return f.runsIn(f.dir()) }

// AllRuns are those of every machine that had the name, oldest first.
func (f *Folder) AllRuns() ([]driver.BackupRun, error) {
	entries, err := os.ReadDir(f.target)
	if err != nil {
		return nil, &Error{Path: f.target, Err: err}
	}
	var all []driver.BackupRun
	for _, e := range entries {
		uid8, ok := strings.CutPrefix(e.Name(), f.vm+"-")
		if !ok || !e.IsDir() || !uidSyntax.MatchString(uid8) {
			continue
		}
		runs, err := f.runsIn(filepath.Join(f.target, e.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, runs...)
	}
	sortRuns(all)
	return all, nil
}

func sortRuns(runs []driver.BackupRun) {
	slices.SortStableFunc(runs, func(a, b driver.BackupRun) int {
		if c := a.At.Compare(b.At); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
}

func (f *Folder) runsIn(dir string) ([]driver.BackupRun, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &Error{Path: dir, Err: err}
	}
	var runs []driver.BackupRun
	for _, e := range entries {
		if !e.IsDir() || !driver.ValidBackupRun(e.Name()) {
			continue
		}
		run, err := readRun(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it goes on, or was cut off
		}
		if err != nil {
			run = driver.BackupRun{ID: e.Name(), VM: f.vm, Folder: filepath.Join(dir, e.Name()), Broken: err.Error()}
			run.At, _ = time.Parse("20060102T150405Z", e.Name()[:16]) // its name is of that form
		}
		runs = append(runs, run)
	}
	sortRuns(runs)
	return runs, nil
}

// readRun reads the manifest of a run.
func readRun(dir string) (run driver.BackupRun, err error) {
	text, err := readSmall(filepath.Join(dir, manifestFile))
	if err != nil {
		return run, err
	}
	if err := json.Unmarshal(text, &run); err != nil {
		return run, fmt.Errorf("%s: %w", manifestFile, err)
	}
	run.Folder = dir
	switch {
	case run.Version < 1 || run.Version > driver.BackupRunVersion:
		return run, fmt.Errorf("%s: it has format %d, and this maqet knows 1 to %d", manifestFile, run.Version, driver.BackupRunVersion)
	case run.ID != filepath.Base(dir) || run.Parent != "" && !driver.ValidBackupRun(run.Parent):
		return run, fmt.Errorf("%s: it is of the run %q", manifestFile, run.ID)
	}
	for _, d := range run.Disks {
		if d.File != d.Name+imageExt || !filepath.IsLocal(d.File) || filepath.Base(d.File) != d.File ||
			d.Backing != "" && d.Backing != backing(run.Parent, d.Name) {
			return run, fmt.Errorf("%s: it names the file %q, backed by %q", manifestFile, d.File, d.Backing)
		}
	}
	if why, err := readSmall(filepath.Join(dir, brokenFile)); err == nil {
		run.Broken = strings.TrimSpace(string(why))
	}
	return run, nil
}

// FileOf is the name of a disk's file.
func FileOf(disk string) string { return disk + imageExt }

// backing is how the header of a disk's file names that of the run before.
func backing(parent, disk string) string { return "../" + parent + "/" + FileOf(disk) }
