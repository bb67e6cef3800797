package qga_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maqet/maqet/driver/qga"
)

func TestNew_firstWord_isTheSentinelAndASync(t *testing.T) {
	c, err := qga.New(within(t), play(t, func(p *peer) {
		r, _ := p.next()
		if r.Command != "guest-sync-delimited" || !r.sentinel || r.syncID() <= 0 {
			t.Errorf("the client begins with %+v", r)
		}
		p.say(fmt.Sprintf("\xff{\"return\": %d}\n", r.syncID()))
		p.hang()
	}), qga.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Ping(within(t)); !errors.Is(err, qga.ErrClosed) {
		t.Errorf("a command after Close: %v, want ErrClosed", err)
	}
}

// TestNew_staleBytes_areDiscarded has an earlier client leave all sorts of things in
// the pipe. What comes after is answered by the right words all the same.
func TestNew_staleBytes_areDiscarded(t *testing.T) {
	for name, stale := range map[string]string{
		"nothing":                      "",
		"an answer":                    `{"return": {"pid": 171}}` + "\n",
		"half an answer":               `{"return": {"pi`,
		"a refusal":                    `{"error": {"class": "GenericError", "desc": "no"}}` + "\n",
		"an answer to another's sync":  "\xff{\"return\": 4711}\n",
		"a sentinel alone":             "\xff",
		"sentinels":                    "\xff\xff\xff\n\xff\n",
		"half of another's sync":       "\xff{\"retu",
		"a sync that is no number":     "\xff{\"return\": \"x\"}\n\xff{\"return\": 1.5}\n\xff{\"return\": {}}\n\xff{}\n",
		"a long line":                  strings.Repeat("x", 1<<20) + "\n",
		"a long line after a sentinel": "\xff" + strings.Repeat("x", 1<<20),
		"bytes of no text":             "\x00\x01\xfe\n\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := qga.New(within(t), play(t, func(p *peer) {
				r, _ := p.next()
				p.say(stale)
				p.say(fmt.Sprintf("\xff{\"return\": %d}\n", r.syncID()))
				if r, ok := p.next(); ok && r.Command == "guest-get-host-name" {
					p.answer(`{"host-name": "web"}`)
				}
				p.hang()
			}), qga.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if name, err := c.HostName(within(t)); err != nil || name != "web" {
				t.Errorf("HostName = %q, %v", name, err)
			}
		})
	}
}

// TestNew_answerInPieces_isPutTogether cuts the answer at every byte.
func TestNew_answerInPieces_isPutTogether(t *testing.T) {
	c, err := qga.New(within(t), play(t, func(p *peer) {
		r, _ := p.next()
		for _, b := range []byte(fmt.Sprintf("stale\n\xff{\"return\": %d}\n", r.syncID())) {
			p.say(string([]byte{b}))
		}
		p.next()
		for _, b := range []byte("{\"return\": {\"host-name\": \"w\u00e9b\"}}\n") {
			p.say(string([]byte{b}))
		}
		p.hang()
	}), qga.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if name, err := c.HostName(within(t)); err != nil || name != "wéb" {
		t.Errorf("HostName = %q, %v", name, err)
	}
}

func TestNew_silentPeer_isNotAnsweringWithinItsTime(t *testing.T) {
	for name, script := range map[string]func(*peer){
		"reads and says nothing": func(p *peer) { p.hang() },
		"half an answer": func(p *peer) {
			p.next()
			p.say("\xff{\"return\": 4")
			p.hang()
		},
		"reads nothing": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nc, server := net.Pipe()
				defer func() { _ = server.Close() }()
				if script != nil {
					nc = play(t, script)
				}
				begun := time.Now()
				_, err := qga.New(t.Context(), nc, qga.Options{Answer: 2 * time.Second})
				if !errors.Is(err, qga.ErrNotAnswering) || !errors.Is(err, qga.ErrClosed) {
					t.Errorf("New: %v, want ErrNotAnswering", err)
				}
				if took := time.Since(begun); took != 2*time.Second {
					t.Errorf("it took %s, want 2s", took)
				}
			})
		})
	}
}

// TestNew_flood_isNotAnsweringWithinItsTime has peers that never rest, which the
// clock of a bubble would wait for.
func TestNew_flood_isNotAnsweringWithinItsTime(t *testing.T) {
	for name, text := range map[string]string{
		"answers":       "{\"return\": {}}\n",
		"no line ends":  strings.Repeat("x", 4096),
		"wrong numbers": "\xff{\"return\": 42}\n",
		"sentinels":     "\xff",
	} {
		t.Run(name, func(t *testing.T) {
			nc := play(t, func(p *peer) {
				p.next()
				for p.say(text) {
				}
			})
			_, err := qga.New(within(t), nc, qga.Options{Answer: 50 * time.Millisecond})
			if !errors.Is(err, qga.ErrNotAnswering) {
				t.Errorf("New: %v, want ErrNotAnswering", err)
			}
		})
	}
}

func TestNew_peerLeaves_saysSo(t *testing.T) {
	_, err := qga.New(within(t), play(t, func(p *peer) { p.next() }), qga.Options{})
	if !errors.Is(err, qga.ErrClosed) || errors.Is(err, qga.ErrNotAnswering) {
		t.Errorf("New: %v, want ErrClosed alone", err)
	}
}

func TestNew_callerGivesUp_endsAtOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := qga.New(ctx, play(t, func(p *peer) {
		p.next()
		cancel()
		p.hang()
	}), qga.Options{Answer: time.Hour})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("New: %v, want Canceled", err)
	}
}

func TestDial_noSocket_namesIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "qga.sock")
	if _, err := qga.Dial(within(t), path, qga.Options{}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Dial: %v, want the path", err)
	}
}
