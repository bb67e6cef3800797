package qga_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver/qga"
)

// sent is what a command looks like on the wire.
func sent(t *testing.T, answer string, do func(c *qga.Conn) error) string {
	t.Helper()
	got := make(chan request, 1)
	c := connect(t, qga.Options{}, func(p *peer) {
		r, _ := p.next()
		got <- r
		p.answer(answer)
		p.hang()
	})
	if err := do(c); err != nil {
		t.Errorf("%v", err)
	}
	r := <-got
	var compact bytes.Buffer
	if len(r.Args) > 0 {
		if err := json.Compact(&compact, r.Args); err != nil {
			t.Fatal(err)
		}
	}
	return r.Command + " " + compact.String()
}

func TestCommands_onTheWire_areAsTheAgentReadsThem(t *testing.T) {
	file := qga.File{Handle: 1002}
	for _, tc := range []struct {
		want, answer string
		do           func(c *qga.Conn) error
	}{
		{`guest-ping `, `{}`, func(c *qga.Conn) error { return c.Ping(t.Context()) }},
		{`guest-exec {"path":"cat","arg":["-n","<&>"],"env":["A=b"],"input-data":"aGk=","capture-output":true}`, `{"pid": 12}`, func(c *qga.Conn) error {
			pid, err := c.Exec(t.Context(), qga.ExecRequest{Path: "cat", Args: []string{"-n", "<&>"}, Env: []string{"A=b"}, Input: []byte("hi"), Capture: true})
			if pid != 12 {
				t.Errorf("pid %d", pid)
			}
			return err
		}},
		{`guest-exec {"path":"true"}`, `{"pid": 12}`, func(c *qga.Conn) error {
			_, err := c.Exec(t.Context(), qga.ExecRequest{Path: "true"})
			return err
		}},
		{`guest-exec-status {"pid":12}`, `{"exited": true, "exitcode": 3, "out-data": "aGk=", "err-data": "bm8=", "out-truncated": true}`, func(c *qga.Conn) error {
			s, err := c.ExecStatus(t.Context(), 12)
			if !s.Exited || s.ExitCode == nil || *s.ExitCode != 3 || s.Signal != nil || string(s.Out) != "hi" || string(s.Err) != "no" || !s.OutTruncated || s.ErrTruncated {
				t.Errorf("status %+v", s)
			}
			return err
		}},
		{`guest-file-open {"mode":"w","path":"/etc/x"}`, `1002`, func(c *qga.Conn) error {
			f, err := c.Open(t.Context(), "/etc/x", "w")
			if f != file {
				t.Errorf("file %+v", f)
			}
			return err
		}},
		{`guest-file-read {"count":262144,"handle":1002}`, `{"count": 2, "buf-b64": "aGk=", "eof": true}`, func(c *qga.Conn) error {
			chunk, eof, err := c.Read(t.Context(), file)
			if string(chunk) != "hi" || !eof {
				t.Errorf("read %q, %v", chunk, eof)
			}
			return err
		}},
		{`guest-file-write {"buf-b64":"aGk=","handle":1002}`, `{"count": 1, "eof": false}`, func(c *qga.Conn) error {
			n, err := c.Write(t.Context(), file, []byte("hi"))
			if n != 1 {
				t.Errorf("wrote %d", n)
			}
			return err
		}},
		{`guest-file-close {"handle":1002}`, `{}`, func(c *qga.Conn) error { return c.CloseFile(t.Context(), file) }},
		{`guest-file-flush {"handle":1002}`, `{}`, func(c *qga.Conn) error { return c.Flush(t.Context(), file) }},
		{`guest-info `, `{"version": "7.2.22", "supported_commands": [{"name": "guest-ping"}]}`, func(c *qga.Conn) error {
			v, err := c.Version(t.Context())
			if v != "7.2.22" {
				t.Errorf("version %q", v)
			}
			return err
		}},
		{`guest-get-fsinfo `, `[{"mountpoint": "/srv"}, {"mountpoint": "/"}, {"mountpoint": "/srv"}]`, func(c *qga.Conn) error {
			points, err := c.Mountpoints(t.Context())
			if diff := cmp.Diff([]string{"/", "/srv"}, points); diff != "" {
				t.Error(diff)
			}
			return err
		}},
		{`guest-fsfreeze-freeze `, `2`, func(c *qga.Conn) error {
			n, err := c.Freeze(t.Context())
			if n != 2 {
				t.Errorf("froze %d", n)
			}
			return err
		}},
		{`guest-fsfreeze-thaw `, `2`, func(c *qga.Conn) error {
			n, err := c.Thaw(t.Context())
			if n != 2 {
				t.Errorf("thawed %d", n)
			}
			return err
		}},
		{`guest-fsfreeze-status `, `"frozen"`, func(c *qga.Conn) error {
			frozen, err := c.Frozen(t.Context())
			if !frozen {
				t.Error("not frozen")
			}
			return err
		}},
	} {
		if got := sent(t, tc.answer, tc.do); got != tc.want {
			t.Errorf("the client wrote %s, want %s", got, tc.want)
		}
	}
}

func TestExec_wordsThatJSONCannotCarry_areRefused(t *testing.T) {
	c := connect(t, qga.Options{}, func(p *peer) { p.hang() })
	for _, r := range []qga.ExecRequest{{Path: "\xff"}, {Path: "a", Args: []string{"\xc3"}}, {Path: "a", Env: []string{"A=\xc3"}}} {
		if _, err := c.Exec(within(t), r); !errors.Is(err, qga.ErrNotUTF8) {
			t.Errorf("Exec(%+v): %v, want ErrNotUTF8", r, err)
		}
	}
	if _, err := c.Open(within(t), "/\xff", "r"); !errors.Is(err, qga.ErrNotUTF8) {
		t.Errorf("Open: %v, want ErrNotUTF8", err)
	}
}

func TestWrite_countThatCannotBe_endsTheConnection(t *testing.T) {
	for _, answer := range []string{`{"count": 0}`, `{"count": 3}`, `{"count": -1}`} {
		c := connect(t, qga.Options{}, func(p *peer) {
			p.next()
			p.answer(answer)
			p.hang()
		})
		if _, err := c.Write(within(t), qga.File{}, []byte("hi")); !errors.Is(err, qga.ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", answer, err)
		}
	}
	c := connect(t, qga.Options{}, func(p *peer) { p.hang() })
	if _, err := c.Write(within(t), qga.File{}, make([]byte, qga.MaxChunk+1)); err == nil {
		t.Error("a chunk over the limit was written")
	}
}

func TestInspect_guestThatLies_isBoundedAndHarmless(t *testing.T) {
	long := strings.Repeat("A", 5000)
	c := connect(t, qga.Options{}, func(p *peer) {
		p.next()
		p.answer(`{"id": "debian", "pretty-name": "\u001b]0;x\u0007Debian\nGNU", "kernel-release": "` + long + `"}`)
		p.next()
		iface := `{"name": "eth0\u0000", "hardware-address": "52:54:00:12:34:56", "ip-addresses": [` +
			strings.TrimSuffix(strings.Repeat(`{"ip-address": "10.0.2.15", "prefix": 24},`, 100), ",") + `]}`
		p.answer("[" + strings.TrimSuffix(strings.Repeat(iface+",", 300), ",") + "]")
		p.hang()
	})
	os, err := c.OSInfo(within(t))
	if err != nil || os.ID != "debian" || os.Pretty != "?]0;x?Debian GNU" || len(os.Kernel) > 256 {
		t.Errorf("OSInfo = %+v, %v", os, err)
	}
	all, err := c.Interfaces(within(t))
	if err != nil || len(all) != 256 || len(all[0].IPs) != 64 || all[0].Name != "eth0?" || all[0].IPs[0] != (qga.IP{Address: "10.0.2.15", Prefix: 24}) {
		t.Errorf("Interfaces = %d, %v", len(all), err)
	}
}

func TestShutdown_answers_tellWhatCameOfIt(t *testing.T) {
	t.Run("taken", func(t *testing.T) {
		c := connect(t, qga.Options{}, func(p *peer) {
			if r, _ := p.next(); r.Command != "guest-shutdown" || string(r.Args) != `{"mode":"powerdown"}` {
				t.Errorf("first %s %s", r.Command, r.Args)
			}
			if r, _ := p.next(); r.Command != "guest-ping" {
				t.Errorf("then %s", r.Command)
			}
			p.answer("{}")
			p.hang()
		})
		if err := c.Shutdown(within(t)); err != nil {
			t.Error(err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		c := connect(t, qga.Options{}, func(p *peer) {
			p.next()
			p.refuse("GenericError", "child process has failed to shutdown")
			p.next()
			p.answer("{}")
			p.hang()
		})
		var refused *qga.Error
		if err := c.Shutdown(within(t)); !errors.As(err, &refused) || refused.Command != "guest-shutdown" {
			t.Errorf("Shutdown: %v, want a refusal", err)
		}
		// The ping's answer would be taken for that of the next command.
		if err := c.Ping(within(t)); !errors.Is(err, qga.ErrClosed) {
			t.Errorf("what follows: %v, want ErrClosed", err)
		}
	})
	t.Run("the guest goes at once", func(t *testing.T) {
		c := connect(t, qga.Options{}, func(p *peer) { p.next() })
		if err := c.Shutdown(within(t)); err != nil {
			t.Error(err)
		}
	})
	t.Run("the agent is gone first", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := connect(t, qga.Options{Answer: time.Second}, func(p *peer) { p.hang() })
			if err := c.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("the caller gives up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := connect(t, qga.Options{}, func(p *peer) {
			p.next()
			cancel()
			p.hang()
		})
		if err := c.Shutdown(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Shutdown: %v, want Canceled", err)
		}
	})
}

func TestRead_moreThanAskedFor_endsTheConnection(t *testing.T) {
	c := connect(t, qga.Options{}, func(p *peer) {
		p.next()
		p.answer(`{"count": 1, "eof": false, "buf-b64": "` + strings.Repeat("AAAA", qga.MaxChunk/3+1) + `"}`)
		p.hang()
	})
	if chunk, _, err := c.Read(within(t), qga.File{}); !errors.Is(err, qga.ErrClosed) {
		t.Errorf("Read gave %d bytes of at most %d: %v", len(chunk), qga.MaxChunk, err)
	}
}
