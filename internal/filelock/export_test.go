package filelock

import "golang.org/x/sys/unix"

// Waiters is how many wait in this process for the lock of path; -1 when its
// goroutine does not run.
func (m *Manager) Waiters(path string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.lines[path]; l != nil {
		return len(l.waiters)
	}
	return -1
}

// Flags are the descriptor flags of a held lock.
func (l *Lock) Flags() (int, error) { return unix.FcntlInt(uintptr(l.fd), unix.F_GETFD, 0) }
