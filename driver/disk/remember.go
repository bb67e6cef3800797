package disk

import (
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// settled is how long a file must have been left alone before an answer about it
// is remembered. Its times move in steps of some milliseconds: within one step
// the file could change again and look the same.
const settled = time.Second

// fileState is what changes whenever a file's content does, and which file it is.
type fileState struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

// stateOf is the state of a regular file; false when there is none, as for a
// block device, whose times tell nothing about its content.
func stateOf(path string) (fileState, bool) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return fileState{}, false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileState{}, false
	}
	return fileState{dev: stat.Dev, ino: stat.Ino, size: stat.Size, mtime: stat.Mtim, ctime: stat.Ctim}, true
}

// restedAt tells whether the file had been left alone long enough at that time.
func (s fileState) restedAt(now time.Time) bool {
	return now.Sub(time.Unix(s.mtime.Unix())) > settled && now.Sub(time.Unix(s.ctime.Unix())) > settled
}

// memory holds qemu-img's last answer about each image. One process looks at the
// same stopped machine several times, and each answer costs a process of its own.
type memory struct {
	mu      sync.Mutex
	answers map[question]answer
}

// question is a path and the format it was asked under.
type question struct{ path, format string }

type answer struct {
	state fileState
	info  Info
}

// recall is the answer about a file that has not changed since.
func (m *memory) recall(q question, now fileState) (Info, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.answers[q]
	if !ok || a.state != now {
		return Info{}, false
	}
	return a.info.clone(), true
}

// keep remembers an answer about the file as it was before it was asked.
func (m *memory) keep(q question, before fileState, info Info) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.answers == nil {
		m.answers = map[question]answer{}
	}
	m.answers[q] = answer{before, info.clone()}
}

// clone shares no list with n, so that nobody changes what is remembered.
func (n Info) clone() Info {
	n.Snapshots, n.Bitmaps, n.ids = slices.Clone(n.Snapshots), slices.Clone(n.Bitmaps), slices.Clone(n.ids)
	return n
}
