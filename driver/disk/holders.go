package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// nameHolders adds to err which processes have path open, as far as /proc shows
// it, and says what to do.
func nameHolders(path string, err error) (hint string, named error) {
	found := holders(path)
	if len(found) == 0 {
		return "find who has it open with: fuser -v " + strconv.Quote(path), err
	}
	return "stop the machine that uses the image, or wait until the command that does is done",
		fmt.Errorf("%w, held by %s", err, strings.Join(found, ", "))
}

// holders names the processes that have one of the files open, as "name (pid N)".
// It is for messages and for caution only: processes of other users or other pid
// namespaces may be invisible, and the answer is old when it is given.
func holders(paths ...string) []string {
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
	var found []string
	for _, proc := range processes() {
		links, err := os.ReadDir(filepath.Join(proc, "fd"))
		if err != nil {
			continue // gone, or not ours to see
		}
		for _, link := range links {
			var st syscall.Stat_t
			if syscall.Stat(filepath.Join(proc, "fd", link.Name()), &st) == nil && wanted[file{st.Dev, st.Ino}] {
				found = append(found, processName(proc))
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

func processName(proc string) string {
	pid := filepath.Base(proc)
	comm, err := os.ReadFile(filepath.Join(proc, "comm")) //nolint:gosec // G304: a file of /proc
	if err != nil {
		return "pid " + pid
	}
	return strings.TrimSpace(string(comm)) + " (pid " + pid + ")"
}
