package filelock

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// holderSize is the length of what a holder writes, padded: writing over the
// last holder's words needs no truncating, and readers never see half of each.
const holderSize = 80

// holder is who has a lock, for messages only.
type holder struct {
	pid int
	// start is when the process started, in the kernel's words; it tells apart
	// two processes of one pid.
	start string
	since time.Time
}

// thisProcess is this process as a holder.
func thisProcess() holder {
	pid := os.Getpid()
	return holder{pid: pid, start: processStart(pid)}
}

// write leaves the holder's words in the lock file. The lock holds without
// them, so that a full disk, for one, is no reason to fail.
func (h holder) write(fd int) {
	text := make([]byte, 0, holderSize)
	text = fmt.Appendf(text, "%d %s %d", h.pid, h.start, time.Now().UnixNano())
	for len(text) < holderSize-1 {
		text = append(text, ' ')
	}
	_, _ = unix.Pwrite(fd, append(text, '\n'), 0)
}

// readHolder reads who has the lock of path. It is false when nobody wrote it,
// or when the process that did is gone.
func readHolder(path string) (holder, bool) {
	text, err := os.ReadFile(path) //nolint:gosec // the lock file.
	if err != nil || len(text) > holderSize {
		return holder{}, false
	}
	words := strings.Fields(string(text))
	if len(words) != 3 {
		return holder{}, false
	}
	pid, errPID := strconv.Atoi(words[0])
	since, errSince := strconv.ParseInt(words[2], 10, 64)
	if errPID != nil || errSince != nil || pid <= 0 || processStart(pid) != words[1] {
		return holder{}, false
	}
	return holder{pid: pid, start: words[1], since: time.Unix(0, since)}, true
}

// command is the process's name as the kernel has it.
func (h holder) command() string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", h.pid))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// processStart is the start time of a process in ticks since the boot, or "-"
// when it cannot be found out.
func processStart(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "-"
	}
	// The name, which may hold anything, ends at the last parenthesis; the
	// start time is the 20th word behind it.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const startTime = 19
	if len(fields) <= startTime {
		return "-"
	}
	return fields[startTime]
}
