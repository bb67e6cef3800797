package qemurun

import (
	"strings"
	"sync"
	"time"
)

// transcript collects a stream and lets readers wait for what appears in it.
type transcript struct {
	mu      sync.Mutex
	data    strings.Builder
	changed chan struct{} // closed and replaced at every write
}

func newTranscript() *transcript { return &transcript{changed: make(chan struct{})} }

// Write implements io.Writer.
func (tr *transcript) Write(p []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	close(tr.changed)
	tr.changed = make(chan struct{})
	return tr.data.Write(p)
}

func (tr *transcript) text() string {
	text, _ := tr.look()
	return text
}

func (tr *transcript) length() int { return len(tr.text()) }

func (tr *transcript) look() (string, <-chan struct{}) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.data.String(), tr.changed
}

// until looks at the text at every write until done says true, the time is over
// or the writer has ended.
func (tr *transcript) until(done func(text string) bool, timeout time.Duration, ended <-chan struct{}) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		text, changed := tr.look()
		if done(text) {
			return true
		}
		select {
		case <-changed:
		case <-ended:
			return done(tr.text())
		case <-timer.C:
			return false
		}
	}
}

func (tr *transcript) wait(text string, count int, timeout time.Duration, ended <-chan struct{}) bool {
	return tr.until(func(all string) bool { return strings.Count(all, text) >= count }, timeout, ended)
}

// between waits for mark after the echo of a command and returns the text in between.
func (tr *transcript) between(from int, echo, mark string, timeout time.Duration, ended <-chan struct{}) (string, bool) {
	var answer string
	ok := tr.until(func(all string) bool {
		_, after, echoed := strings.Cut(all[from:], echo)
		if !echoed {
			return false
		}
		var complete bool
		answer, _, complete = strings.Cut(after, mark)
		return complete
	}, timeout, ended)
	return strings.TrimSpace(strings.ReplaceAll(answer, "\r\n", "\n")), ok
}
