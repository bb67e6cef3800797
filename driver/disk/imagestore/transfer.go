package imagestore

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/internal/filelock"
)

const (
	// tellEvery is how often progress is told, writeEvery how often it is written
	// for other processes.
	tellEvery  = 100 * time.Millisecond
	writeEvery = time.Second
)

// transferRecord is what others see of a fetch: how far it is while it goes on,
// and why it failed once it did.
type transferRecord struct {
	driver.Transfer
	Failed string `json:"failed,omitempty"`
}

// transfer is a fetch that goes on, as it is told to whoever asked for it and
// written down for others.
type transfer struct {
	path string
	told func(driver.Transfer)

	mu      sync.Mutex
	now     driver.Transfer
	lastSay time.Time
	written time.Time
}

// begin begins to tell of a fetch. Told may be nil.
func (s *Store) begin(key string, told func(driver.Transfer)) *transfer {
	if told == nil {
		told = func(driver.Transfer) {}
	}
	return &transfer{path: s.cfg.Layout.Transfer(key), told: told, now: driver.Transfer{PID: os.Getpid(), Who: s.cfg.Who}}
}

// part begins another part of the work. From are the bytes that are done already.
func (t *transfer) part(what string, from, total int64) {
	t.mu.Lock()
	t.now.What, t.now.Done, t.now.From, t.now.Total, t.now.Since = what, from, from, total, now()
	t.mu.Unlock()
	t.say(true)
}

// add tells that n more bytes are done.
func (t *transfer) add(n int) {
	t.mu.Lock()
	t.now.Done += int64(n)
	due := time.Since(t.lastSay) >= tellEvery
	t.mu.Unlock()
	if due {
		t.say(false)
	}
}

// say tells how far it is, and from time to time writes it down. That others
// cannot be told is no reason to fail.
func (t *transfer) say(always bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastSay = time.Now()
	t.told(t.now)
	if always || time.Since(t.written) >= writeEvery {
		t.written = time.Now()
		_ = t.write(transferRecord{Transfer: t.now})
	}
}

func (t *transfer) write(r transferRecord) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	err = durable.WriteVolatile(t.path, text, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(t.path), 0o700); err != nil {
			return err
		}
		err = durable.WriteVolatile(t.path, text, 0)
	}
	return err
}

// end leaves word of a failure, or nothing.
func (t *transfer) end(failed error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if failed == nil {
		_ = os.Remove(t.path)
		return
	}
	last := t.now
	last.PID = 0
	_ = t.write(transferRecord{Transfer: last, Failed: failed.Error()})
}

// readTransfer is how far whoever holds the lock of the key is, or why the last
// try failed. What a killed process left says nothing.
func (s *Store) readTransfer(key string) (going *driver.Transfer, failed string) {
	r, err := read[transferRecord](s.cfg.Layout.Transfer(key))
	switch {
	case err != nil || r == nil:
		return nil, ""
	case r.Failed != "":
		return nil, r.Failed
	}
	lock, err := s.cfg.Locks.TryLock(s.cfg.Layout.ImageLock(key))
	if err == nil {
		_ = lock.Unlock()
		return nil, ""
	}
	if !errors.Is(err, filelock.ErrHeld) {
		return nil, ""
	}
	return &r.Transfer, ""
}
