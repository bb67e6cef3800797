package layout

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/maqet/maqet/internal/durable"
)

// dirPerm is the mode of both folders: what is in them is nobody else's business.
const dirPerm fs.FileMode = 0o700

// Error is a folder or file of the layout that cannot be used.
type Error struct {
	// Path is the folder or file.
	Path string
	// Err is the cause.
	Err error
	// Hint is what to do next.
	Hint string
}

// Error is "path: cause; hint".
func (e *Error) Error() string { return e.Path + ": " + e.Err.Error() + "; " + e.Hint }

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrForeignRunDir is wrapped when a run dir belongs to another state dir.
var ErrForeignRunDir = errors.New("the run dir belongs to another state dir")

// EnsureDirs makes the state dir and the run dir, mode 0700, when they are
// missing, and gives the state dir its id, once. The run dir is marked with
// that id; one that is marked with another's is refused, since the sockets and
// locks in it are those of other machines.
func EnsureDirs(l Layout) error {
	for _, dir := range []struct{ path, flag string }{{l.State, "--state-dir"}, {l.Run, "--run-dir"}} {
		if err := ensureDir(dir.path, dir.flag); err != nil {
			return err
		}
	}
	id, _, err := ensureMark(l.StateID(), rand.Text(), l.State)
	if err != nil {
		return err
	}
	owner, from, err := ensureMark(l.RunOwner(), id, l.State)
	if err != nil {
		return err
	}
	if owner != id {
		return &Error{
			Path: l.Run,
			Err:  fmt.Errorf("%w (%s)", ErrForeignRunDir, from),
			Hint: fmt.Sprintf("choose another with --run-dir or MAQET_RUN_DIR for the state dir %s", l.State),
		}
	}
	return nil
}

// ensureDir makes a folder, or checks that an existing one is safe to use:
// whoever else can write to it could lead maqet's writing elsewhere.
func ensureDir(path, flag string) error {
	elsewhere := "choose another folder with " + flag
	if path == "" {
		return &Error{Path: "(no path)", Err: fs.ErrInvalid, Hint: elsewhere}
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(path, dirPerm); err != nil {
			return &Error{Path: path, Err: err, Hint: elsewhere}
		}
		info, err = os.Stat(path)
	}
	if err != nil {
		return &Error{Path: path, Err: err, Hint: elsewhere}
	}
	const othersWrite = 0o022
	stat, _ := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return &Error{Path: path, Err: errors.New("not a folder"), Hint: elsewhere}
	case stat != nil && int(stat.Uid) != os.Geteuid():
		return &Error{
			Path: path, Err: fmt.Errorf("it belongs to the user with the id %d", stat.Uid),
			Hint: "run maqet as that user, or " + elsewhere,
		}
	case info.Mode()&othersWrite != 0:
		return &Error{
			Path: path, Err: fmt.Errorf("others may write to it (mode %#o)", info.Mode().Perm()),
			Hint: fmt.Sprintf("chmod 0700 %s, or %s", path, elsewhere),
		}
	}
	return nil
}

// ensureMark reads the id in a file, or writes it when there is none. The
// second line, for messages only, is the state dir that it was written for.
func ensureMark(path, id, state string) (found, from string, err error) {
	text, err := os.ReadFile(path) //nolint:gosec // a file of the layout.
	if errors.Is(err, fs.ErrNotExist) {
		err = durable.Create(path, []byte(id+"\n"+state+"\n"), 0)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return "", "", &Error{Path: path, Err: err, Hint: "make the folder writable and free some space"}
		}
		text, err = os.ReadFile(path) //nolint:gosec // a file of the layout.
	}
	if err != nil {
		return "", "", &Error{Path: path, Err: err, Hint: "make it readable to the user maqet runs as"}
	}
	found, rest, _ := strings.Cut(string(text), "\n")
	if found = strings.TrimSpace(found); found == "" {
		return "", "", &Error{
			Path: path, Err: errors.New("it holds no id"),
			Hint: "remove the file while no machine runs; a new id is made",
		}
	}
	return found, strings.TrimSpace(rest), nil
}
