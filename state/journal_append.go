package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// batch is what several callers of one process append in one turn.
type batch struct {
	lines [][]byte
	done  chan struct{} // closed when written, or when that failed
	err   error         // set before done closes
}

// Append writes events at the end of the journal, all in one go and in this
// order. An event without a time gets the present one.
//
// What is written survives the end of this process at any moment; nobody waits
// for the disk, so the last events may not survive a loss of power. Whoever
// journals an action goes on with it when this fails.
func (j *Journal) Append(ctx context.Context, events ...Event) error {
	if len(events) == 0 {
		return nil
	}
	lines := make([][]byte, 0, len(events))
	for _, ev := range events {
		if ev.Time.IsZero() {
			ev.Time = time.Now()
		}
		line, err := encodeLine(ev)
		if err != nil {
			return j.fail("write", err)
		}
		lines = append(lines, line)
	}
	ctx, cancel := context.WithTimeout(ctx, j.cfg.Timing.Events)
	defer cancel()
	if err := j.take(ctx, j.join(lines)); err != nil {
		return j.fail("write", err)
	}
	return nil
}

// join adds lines to what the next turn writes.
func (j *Journal) join(lines [][]byte) *batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.next == nil {
		j.next = &batch{done: make(chan struct{})}
	}
	j.next.lines = append(j.next.lines, lines...)
	return j.next
}

// take waits until b is written: by this caller, when its turn comes first, or
// by another one, whose batch it joined.
func (j *Journal) take(ctx context.Context, b *batch) error {
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return fmt.Errorf("wait for the other writers of this process: %w", ctx.Err())
	case j.turn <- struct{}{}:
	}
	defer func() { <-j.turn }()
	j.mu.Lock()
	mine := j.next == b
	if mine {
		j.next = nil
	}
	j.mu.Unlock()
	if mine {
		// Others wait for this batch too: no caller's end may cut it off.
		b.err = j.write(context.WithoutCancel(ctx), b.lines)
		close(b.done)
	}
	<-b.done
	return b.err
}

// write appends lines under the lock that all processes take.
func (j *Journal) write(ctx context.Context, lines [][]byte) (err error) {
	ctx, cancel := context.WithTimeout(ctx, j.cfg.Timing.Events)
	defer cancel()
	lock, err := j.cfg.Locks.Lock(ctx, j.cfg.LockPath)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	tail, err := j.openTail()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tail.file.Close()) }()
	var text []byte
	for _, line := range lines {
		if full := tail.size + int64(len(text)+len(line)); full > j.cfg.MaxBytes && tail.size+int64(len(text)) > 0 {
			if err := tail.write(text); err != nil {
				return err
			}
			text = nil
			if err := j.rotate(&tail); err != nil {
				return err
			}
		}
		text = append(text, line...)
	}
	return tail.write(text)
}

// tail is the end of the journal, where lines are added.
type tail struct {
	file *os.File
	size int64
}

// openTail opens the journal for appending, and cuts off a torn last line: what
// a killed process or a full disk left of one.
func (j *Journal) openTail() (tail, error) {
	const flags = os.O_RDWR | os.O_CREATE | os.O_APPEND | syscall.O_NOFOLLOW
	f, err := os.OpenFile(j.cfg.Path, flags, 0o600)
	if err != nil {
		return tail{}, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: it is no file", fs.ErrInvalid)
	}
	if err != nil {
		return tail{}, errors.Join(err, f.Close())
	}
	end, err := lastLineEnd(f, info.Size())
	if err == nil && end < info.Size() {
		err = f.Truncate(end)
	}
	if err != nil {
		return tail{}, errors.Join(err, f.Close())
	}
	return tail{file: f, size: end}, nil
}

// lastLineEnd is where the last complete line ends.
func lastLineEnd(f *os.File, size int64) (int64, error) {
	const block = 4 << 10
	buf := make([]byte, block)
	// Almost always the last byte tells.
	for end, n := size, int64(1); end > 0; n = block {
		n = min(n, end)
		part := buf[:n]
		if _, err := f.ReadAt(part, end-n); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if at := bytes.LastIndexByte(part, '\n'); at >= 0 {
			return end - n + int64(at) + 1, nil
		}
		end -= n
	}
	return 0, nil
}

// write adds text by one call. When that fails, nothing of it stays.
func (t *tail) write(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	if _, err := t.file.Write(text); err != nil {
		return errors.Join(err, t.file.Truncate(t.size))
	}
	t.size += int64(len(text))
	return nil
}

// rotate makes the journal's file the older one, in the place of the one before,
// and begins a new file.
func (j *Journal) rotate(t *tail) error {
	if err := os.Rename(j.cfg.Path, j.cfg.Before); err != nil {
		return err
	}
	fresh, err := j.openTail()
	if err != nil {
		return err
	}
	old := t.file
	*t = fresh
	return old.Close()
}
