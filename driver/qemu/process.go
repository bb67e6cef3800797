package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// procfs reads the kernel's view of processes. Tests give it a made-up root.
type procfs struct{ root string }

// userHz is the unit of times in /proc/PID/stat. The kernel fixes it at 100 for
// everything that user space sees.
const userHz = 100

// errNoProcess tells that there is no such process, or only its remains: a zombie
// is dead, although it answers signals.
var errNoProcess = errors.New("no such process")

// procStat is what is used of /proc/PID/stat.
type procStat struct {
	state byte
	// start is the time of the process's start in ticks since the boot. It tells
	// apart two processes of one pid.
	start uint64
}

// dead tells whether nothing but an entry is left of the process.
func (s procStat) dead() bool { return s.state == 'Z' || s.state == 'X' || s.state == 'x' }

func (p procfs) path(pid int, file string) string {
	return filepath.Join(p.root, strconv.Itoa(pid), file)
}

// stat reads /proc/PID/stat.
func (p procfs) stat(pid int) (procStat, error) {
	text, err := readProc(p.path(pid, "stat"), nil)
	if gone(err) {
		return procStat{}, errNoProcess
	}
	if err != nil {
		return procStat{}, err
	}
	// The name, which may hold anything, ends at the last parenthesis. The state is
	// the first word behind it and the start time the 20th.
	const startTime = 19
	words := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(words) <= startTime {
		return procStat{}, fmt.Errorf("%s: has only %d words", p.path(pid, "stat"), len(words))
	}
	start, err := strconv.ParseUint(words[startTime], 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("%s: start time: %w", p.path(pid, "stat"), err)
	}
	return procStat{state: words[0][0], start: start}, nil
}

// cmdline reads the command line of a process; it is empty for a zombie and for
// the kernel's own threads.
func (p procfs) cmdline(pid int) ([]string, error) {
	text, err := readProc(p.path(pid, "cmdline"), nil)
	if gone(err) {
		return nil, errNoProcess
	}
	if err != nil {
		return nil, err
	}
	return splitArgv(text), nil
}

// splitArgv cuts the text of a command line into its words.
func splitArgv(text []byte) []string {
	if len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// gone tells whether reading failed because the process is not there (any more).
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// bootID names the current boot.
func (p procfs) bootID() (string, error) {
	text, err := readProc(filepath.Join(p.root, "sys/kernel/random/boot_id"), nil)
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// bootTime is when the host was started.
func (p procfs) bootTime() (time.Time, error) {
	path := filepath.Join(p.root, "stat")
	text, err := os.ReadFile(path) //nolint:gosec // G304: /proc, or a test's own
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(text)) {
		if word, ok := strings.CutPrefix(line, "btime "); ok {
			seconds, err := strconv.ParseInt(strings.TrimSpace(word), 10, 64)
			return time.Unix(seconds, 0), err
		}
	}
	return time.Time{}, fmt.Errorf("%s: has no btime", path)
}

// startedAt is when a process was started. The kernel counts from the boot, so
// that the answer moves when somebody sets the clock; it is for people.
func startedAt(start uint64, now time.Time) time.Time {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}
	}
	age := time.Duration(up.Nano()) - time.Duration(start)*(time.Second/userHz) //nolint:gosec // ages are below 2^63
	return now.Add(-age).Truncate(time.Second / userHz)
}

// pids are the numbers of all visible processes.
func (p procfs) pids() ([]int, error) {
	dir, err := os.Open(p.root)
	if err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return nil, err
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// seen is a process that has a machine's uuid on its command line.
type seen struct {
	pid  int
	argv []string
}

// command names the process for a message.
func (s seen) command() string {
	if len(s.argv) == 0 {
		return "a process"
	}
	return filepath.Base(s.argv[0])
}

// guests are all processes that have a uuid on their command line, by uuid. That
// is every QEMU that has a fixed one, whoever started it, and whatever else was
// given such a word. Processes that end meanwhile are left out; those that must
// not be looked at are somebody else's and none of ours.
func (p procfs) guests() (map[string][]seen, error) {
	pids, err := p.pids()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	found := map[string][]seen{}
	own, option := os.Getpid(), []byte("-uuid\x00")
	var text []byte
	for _, pid := range pids {
		if pid == own {
			continue
		}
		if text, err = readProc(p.path(pid, "cmdline"), text); err != nil || !bytes.Contains(text, option) {
			continue
		}
		argv := splitArgv(text)
		if uid := argvUUID(argv); uid != "" {
			found[uid] = append(found[uid], seen{pid, argv})
		}
	}
	return found, nil
}

// argvUUID is what follows -uuid on a command line, in lower case. The last one
// counts, as it does for QEMU.
func argvUUID(argv []string) string {
	uid := ""
	for i := 1; i+1 < len(argv); i++ {
		if argv[i] == "-uuid" || argv[i] == "--uuid" {
			uid = strings.ToLower(argv[i+1])
		}
	}
	return uid
}
