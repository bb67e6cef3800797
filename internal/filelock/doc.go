// Package filelock gives one caller at a time, over all processes and all
// goroutines, the right to a thing that a lock file stands for.
//
//	locks := filelock.New()
//	l, err := locks.Lock(ctx, layout.MachineLock("web"))
//	if err != nil { // *HeldError names who has it
//		return err
//	}
//	defer l.Unlock()
//
// The kernel holds the lock (flock on the file), so it ends with the process
// that holds it, however that process ends. Locks are exclusive.
//
// Waiting is fair. Processes queue at a turnstile, a second lock on the first
// byte of the same file, which is held only while waiting for the lock itself:
// who releases a lock and wants it back finds the turnstile taken and goes to
// the end. The goroutines of one process stand in line behind one another, and
// their process takes one place in the queue at a time.
//
// A blocked flock cannot be cancelled. So callers never block in it: each lock
// file that is contended has one goroutine that does, and callers wait on a
// channel and on their context. When all of them have given up, that goroutine
// lets the lock go in the moment it gets it.
//
// # Caveats
//
// Lock files are never removed: somebody might wait on the removed file while
// another locks a new one. Should a folder with lock files vanish all the same,
// whoever gets a lock on a file that is no longer there starts over.
//
// A lock is not reentrant: locking twice in one goroutine waits until the
// context ends. A lock file on a network file system is outside the promise.
package filelock
