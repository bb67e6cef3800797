package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/maqet/maqet/manifest"
)

// Holder is a process that has a file open.
type Holder struct {
	// PID is its id, Command the name of its program.
	PID     int
	Command string
	// Machine is the name of the machine that it runs, when it is the QEMU of one.
	Machine string
}

// String is "qemu-system-x86_64 (pid 4711, machine web)".
func (h Holder) String() string {
	inside := "pid " + strconv.Itoa(h.PID)
	if h.Machine != "" {
		inside += ", machine " + h.Machine
	}
	if h.Command == "" {
		return inside
	}
	return h.Command + " (" + inside + ")"
}

// InUse is the error of an image that another process has open. It names who does, as
// far as /proc shows it.
func InUse(path string, cause error) *Error {
	hint, named := nameHolders(path, cause)
	return &Error{Path: path, Op: "open", Err: named, Hint: hint}
}

// nameHolders adds to err which processes have path open, as far as /proc shows
// it, and says what to do.
func nameHolders(path string, err error) (hint string, named error) {
	found := Holders(path)
	if len(found) == 0 {
		return "find who has it open with: fuser -v " + strconv.Quote(path), err
	}
	hint = "wait until the command that uses the image is done, or end it"
	for _, h := range found {
		if h.Machine != "" {
			hint = "stop the machine that uses the image with: maqet stop " + h.Machine
		}
	}
	return hint, fmt.Errorf("%w, held by %s", err, HolderWords(found))
}

// HolderWords names processes one after the other.
func HolderWords(found []Holder) string {
	words := make([]string, len(found))
	for i, h := range found {
		words[i] = h.String()
	}
	return strings.Join(words, ", ")
}

// Holders are the processes that have one of the files open. It is for messages and
// for caution only: processes of other users or other pid namespaces may be invisible,
// and the answer is old when it is given.
func Holders(paths ...string) []Holder {
	type file struct{ dev, ino uint64 }
	wanted := map[file]bool{}
	for _, path := range paths {
		var st syscall.Stat_t
		if syscall.Stat(path, &st) == nil {
			wanted[file{st.Dev, st.Ino}] = true
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	var found []Holder
	for _, proc := range processes() {
		links, err := os.ReadDir(filepath.Join(proc, "fd"))
		if err != nil {
			continue // gone, or not ours to see
		}
		for _, link := range links {
			var st syscall.Stat_t
			if syscall.Stat(filepath.Join(proc, "fd", link.Name()), &st) == nil && wanted[file{st.Dev, st.Ino}] {
				found = append(found, holderOf(proc))
				break
			}
		}
	}
	return found
}

// processes are the folders of all visible processes but this one.
func processes() []string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []string
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() {
			all = append(all, filepath.Join("/proc", e.Name()))
		}
	}
	return all
}

// holderOf says which process a folder of /proc shows.
func holderOf(proc string) Holder {
	pid, err := strconv.Atoi(filepath.Base(proc))
	if err != nil {
		return Holder{}
	}
	h := Holder{PID: pid}
	line, err := os.ReadFile(filepath.Join(proc, "cmdline")) //nolint:gosec // G304: a file of /proc
	argv := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	if err != nil || argv[0] == "" {
		return h // it is gone, and its number is all that is left to say
	}
	h.Command, h.Machine = printable(filepath.Base(argv[0])), machineOf(argv)
	return h
}

// machineOf is the machine whose QEMU has the command line; empty for any other
// process. Maqet's own have their pid file in a folder called like the machine.
func machineOf(argv []string) string {
	var guest, folder string
	for i, arg := range argv[:len(argv)-1] {
		switch arg {
		case "-name":
			guest, _ = strings.CutPrefix(argv[i+1], "guest=")
		case "-pidfile":
			folder = filepath.Base(filepath.Dir(argv[i+1]))
		}
	}
	if guest != folder || manifest.ValidMachineName(guest) != nil {
		return ""
	}
	return guest
}

// printable is a name that somebody else chose, without what would change a terminal.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, name)
}
