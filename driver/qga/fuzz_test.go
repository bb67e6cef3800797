package qga_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"
	"unicode"

	"github.com/maqet/maqet/driver/qga"
)

// FuzzSync puts anything before the answer that brings a client into step, except a
// line that is just that answer, which chance does not hit.
func FuzzSync(f *testing.F) {
	f.Add([]byte(nil), 1)
	f.Add([]byte("{\"return\": 1}\n\xff{\"return\": 1}\n\xff"), 3)
	f.Add(bytes.Repeat([]byte{0xff, '\n'}, 300), 7)
	f.Fuzz(func(t *testing.T, stale []byte, cut int) {
		c, err := qga.New(within(t), play(t, func(p *peer) {
			r, _ := p.next()
			text := fmt.Sprintf("%s\xff{\"return\": %d}\n", stale, r.syncID())
			at := min(max(cut, 0), len(text))
			p.say(text[:at])
			p.say(text[at:])
			p.next()
			p.answer(`{"host-name": "web"}`)
			p.hang()
		}), qga.Options{})
		if err != nil {
			t.Fatalf("New: %v", err)
		}
		if name, err := c.HostName(within(t)); err != nil || name != "web" {
			t.Errorf("HostName = %q, %v", name, err)
		}
	})
}

// FuzzAnswer has an agent answer anything. The client makes of it a result, a refusal
// or a violated protocol, in bounded time and space.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"return": {"id": "debian", "pretty-name": "x"}}` + "\n"))
	f.Add([]byte(`{"error": {"class": "GenericError", "desc": "\u001b"}}` + "\n"))
	f.Add([]byte("\n\n\xff{}\n"))
	f.Add([]byte(`{"return": `))
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := connect(t, qga.Options{Answer: 10 * time.Second, MaxReply: 4096}, func(p *peer) {
			p.next()
			p.say(string(answer))
		})
		os, err := c.OSInfo(within(t))
		var refused *qga.Error
		switch {
		case err == nil || errors.As(err, &refused):
			for _, text := range []string{os.ID, os.Name, os.Pretty, os.Version, os.Kernel, os.Machine} {
				for _, r := range text {
					if !unicode.IsPrint(r) {
						t.Errorf("%q holds %q", text, r)
					}
				}
			}
		case !errors.Is(err, qga.ErrClosed):
			t.Errorf("OSInfo: %v, which is no kind of error that callers know", err)
		}
	})
}
