package qga_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maqet/maqet/driver/qga"
)

func TestDo_refusal_hasClassAndSentenceAndStaysInStep(t *testing.T) {
	c := connect(t, qga.Options{}, func(p *peer) {
		p.next()
		p.refuse("CommandNotFound", "Command guest-exec has been disabled: the agent is in frozen state")
		p.next()
		p.say(`{"error": {"class": "GenericError", "desc": "a \u001b[2J b"}}` + "\n")
		p.next()
		p.answer("{}")
		p.hang()
	})
	_, err := c.Exec(within(t), qga.ExecRequest{Path: "id"})
	var refused *qga.Error
	if !errors.As(err, &refused) || refused.Command != "guest-exec" || refused.Class != qga.ClassCommandNotFound ||
		!strings.Contains(err.Error(), "frozen state") || !qga.IsUnsupported(err) {
		t.Errorf("Exec: %v", err)
	}
	if err := c.Ping(within(t)); qga.IsUnsupported(err) || !strings.HasSuffix(err.Error(), "a ?[2J b") {
		t.Errorf("Ping: %q, want a refusal that no terminal obeys", err)
	}
	if err := c.Ping(within(t)); err != nil {
		t.Errorf("Ping after two refusals: %v", err)
	}
}

func TestDo_strangeAnswer_endsTheConnection(t *testing.T) {
	for name, answer := range map[string]string{
		"no JSON":                `nonsense`,
		"no object":              `[1]`,
		"neither":                `{}`,
		"return of another form": `{"return": {"host-name": 1}}`,
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, qga.Options{}, func(p *peer) {
				p.next()
				p.say("\n\r\n" + answer + "\n")
				p.hang()
			})
			_, err := c.HostName(within(t))
			var broken *qga.ProtocolError
			if !errors.As(err, &broken) || !errors.Is(err, qga.ErrClosed) || !strings.Contains(err.Error(), "guest-get-host-name") {
				t.Errorf("HostName: %v, want a *ProtocolError", err)
			}
			if err := c.Ping(within(t)); !errors.Is(err, qga.ErrClosed) {
				t.Errorf("what follows: %v, want ErrClosed", err)
			}
		})
	}
}

func TestDo_answerWithoutEnd_isBounded(t *testing.T) {
	c := connect(t, qga.Options{MaxReply: 100 << 10}, func(p *peer) {
		p.next()
		for p.say(strings.Repeat("x", 4096)) {
		}
	})
	err := c.Ping(within(t))
	var broken *qga.ProtocolError
	if !errors.As(err, &broken) || !strings.Contains(err.Error(), "longer than 102400 bytes") || len(err.Error()) > 400 {
		t.Errorf("Ping: %v", err)
	}
}

func TestDo_silence_endsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, qga.Options{Answer: 3 * time.Second}, func(p *peer) { p.hang() })
		begun := time.Now()
		if err := c.Ping(t.Context()); !errors.Is(err, qga.ErrNotAnswering) || !strings.Contains(err.Error(), "guest-ping") {
			t.Errorf("Ping: %v, want ErrNotAnswering", err)
		}
		if took := time.Since(begun); took != 3*time.Second {
			t.Errorf("it took %s, want 3s", took)
		}
		// An answer that comes late must not be taken for another command's.
		if err := c.Ping(t.Context()); !errors.Is(err, qga.ErrClosed) {
			t.Errorf("what follows: %v, want ErrClosed", err)
		}
	})
}

// TestDo_slowAnswer_isWaitedFor has an agent that needs far longer than its time for
// the whole answer, and is never silent for so long.
func TestDo_slowAnswer_isWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := func(p *peer) {
			p.next()
			for _, piece := range []string{`{"ret`, `urn": {"host-`, `name": "slo`, `w"}}`, "\n"} {
				<-time.After(2 * time.Second)
				p.say(piece)
			}
			p.hang()
		}
		c := connect(t, qga.Options{Answer: 3 * time.Second}, script)
		if name, err := c.HostName(t.Context()); err != nil || name != "slow" {
			t.Errorf("HostName = %q, %v", name, err)
		}
		// The context bounds the whole.
		c = connect(t, qga.Options{Answer: 3 * time.Second}, script)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := c.HostName(ctx); !errors.Is(err, qga.ErrNotAnswering) {
			t.Errorf("HostName: %v, want ErrNotAnswering", err)
		}
		c = connect(t, qga.Options{Answer: time.Second}, script)
		c.Allow(time.Minute)
		if _, err := c.HostName(t.Context()); err != nil {
			t.Errorf("HostName of an agent that was allowed its time: %v", err)
		}
	})
}

func TestDo_callerGivesUp_endsAtOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := connect(t, qga.Options{Answer: time.Hour}, func(p *peer) {
		p.next()
		cancel()
		p.hang()
	})
	if err := c.Ping(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Ping: %v, want Canceled", err)
	}
}

func TestDo_longCommand_slowReaderIsNotSilent(t *testing.T) {
	c := connect(t, qga.Options{Answer: 10 * time.Second}, func(p *peer) {
		r, ok := p.next()
		if !ok || len(r.Args) < 4<<20 {
			t.Errorf("%s came with %d bytes", r.Command, len(r.Args))
		}
		p.answer(`{"pid": 7}`)
		p.hang()
	})
	pid, err := c.Exec(within(t), qga.ExecRequest{Path: "cat", Input: make([]byte, 3<<20), Capture: true})
	if err != nil || pid != 7 {
		t.Errorf("Exec = %d, %v", pid, err)
	}
}

// TestDo_longAnswerToAShortQuestion_isRefused has a guest that answers with megabytes
// where its name was asked for: many times that would be needed to hold what is in them.
func TestDo_longAnswerToAShortQuestion_isRefused(t *testing.T) {
	const most = 4 << 20
	for name, ask := range map[string]func(c *qga.Conn) error{
		"name":        func(c *qga.Conn) error { _, err := c.HostName(within(t)); return err },
		"interfaces":  func(c *qga.Conn) error { _, err := c.Interfaces(within(t)); return err },
		"mountpoints": func(c *qga.Conn) error { _, err := c.Mountpoints(within(t)); return err },
		"chunk":       func(c *qga.Conn) error { _, _, err := c.Read(within(t), qga.File{}); return err },
		"thaw":        func(c *qga.Conn) error { _, err := c.Thaw(within(t)); return err },
	} {
		t.Run(name, func(t *testing.T) {
			taken := 0
			over := make(chan struct{})
			c := connect(t, qga.Options{}, func(p *peer) {
				defer close(over)
				p.next()
				for p.say(`{"return": [` + strings.Repeat("{},", 10_000)) {
					if taken += 30_000; taken > most {
						return
					}
				}
			})
			err := ask(c)
			<-over
			var broken *qga.ProtocolError
			if !errors.As(err, &broken) || taken > most {
				t.Errorf("%d bytes were taken: %v", taken, err)
			}
		})
	}
}
