package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

func TestLogs_tail_showsTheLastLines(t *testing.T) {
	r := newRig(t)
	r.must(os.MkdirAll(r.layout.LogDir("web"), 0o700))
	var long strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&long, "line %d\n", i)
	}
	cases := map[string]struct {
		content string
		tail    int
		want    string
	}{
		"all":              {"a\nb\nc\n", -1, "a\nb\nc\n"},
		"none":             {"a\nb\nc\n", 0, ""},
		"two":              {"a\nb\nc\n", 2, "b\nc\n"},
		"more than are":    {"a\nb\n", 9, "a\nb\n"},
		"unfinished":       {"a\nb\nc", 2, "b\nc"},
		"empty":            {"", 3, ""},
		"over many blocks": {long.String(), 19000, long.String()[strings.Index(long.String(), "line 1000\n"):]},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r.must(os.WriteFile(r.layout.SerialLog("web"), []byte(c.content), 0o600))
			var out bytes.Buffer
			r.must(r.Logs(t.Context(), "web", LogRequest{Kind: LogSerial, Tail: c.tail}, &out))
			if out.String() != c.want {
				t.Errorf("%d bytes %.40q, want %d bytes %.40q", out.Len(), out.String(), len(c.want), c.want)
			}
		})
	}
	if err := r.Logs(t.Context(), "web", LogRequest{Kind: LogQEMU}, new(bytes.Buffer)); !errors.Is(err, os.ErrNotExist) || lifecycle(err).Hint == "" {
		t.Errorf("Logs of no log = %v", err)
	}
}

// seenText collects what a follower has shown.
type seenText struct {
	mu   sync.Mutex
	text strings.Builder
	news chan struct{}
}

func (s *seenText) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(b)
	select {
	case s.news <- struct{}{}:
	default:
	}
	return len(b), nil
}

// await waits until the text is all that was shown.
func (s *seenText) await(t *testing.T, want string) {
	t.Helper()
	deadline := time.NewTimer(5 * time.Second)
	defer deadline.Stop()
	for {
		s.mu.Lock()
		got := s.text.String()
		s.mu.Unlock()
		if got == want {
			return
		}
		select {
		case <-s.news:
		case <-deadline.C:
			t.Fatalf("shown %q, want %q", got, want)
		}
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, _, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLogs_follow_goesOnOverARotation(t *testing.T) {
	r := newRig(t)
	r.must(os.MkdirAll(r.layout.LogDir("web"), 0o700))
	path := r.layout.SerialLog("web")
	appendTo(t, path, "one\ntwo\n")
	ctx, cancel := context.WithCancel(t.Context())
	out := &seenText{news: make(chan struct{}, 1)}
	done := make(chan error)
	go func() { done <- r.Logs(ctx, "web", LogRequest{Kind: LogSerial, Tail: 1, Follow: true}, out) }()
	out.await(t, "two\n")
	appendTo(t, path, "three\n")
	out.await(t, "two\nthree\n")
	if rotated, err := rotateLog(path, 3); err != nil || !rotated {
		t.Fatalf("rotateLog = %v, %v", rotated, err)
	}
	appendTo(t, path, "four\n")
	out.await(t, "two\nthree\nfour\n")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Logs = %v, want the context's end", err)
	}
}

func TestRotateLogs_keepsThreeAndResetsOffsets(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard, func(s *manifest.VirtualMachineSpec) { s.Serial = nil })
	r.start(vm, false)
	path := r.layout.QEMULog("web")
	r.rewriteLaunched("web", func(l *driver.Launched) { l.LogOffset, l.SerialOffset = 5, 6 })
	for i := range 5 {
		r.must(os.Truncate(path, 0))
		appendTo(t, path, fmt.Sprintf("turn %d\n", i))
		r.must(os.Truncate(path, maxLog+1))
		r.must(r.RotateLogs("web"))
		if info, err := os.Stat(path); err != nil || info.Size() != 0 {
			t.Fatalf("the log is not empty: %v, %v", info, err)
		}
	}
	for n, turn := range map[int]string{1: "turn 4\n", 2: "turn 3\n", 3: "turn 2\n"} {
		text, err := os.ReadFile(numbered(path, n))
		if err != nil || !strings.HasPrefix(string(text), turn) || len(text) != maxLog+1 {
			t.Errorf("%s: %d bytes %.10q (%v), want %q", numbered(path, n), len(text), text, err, turn)
		}
	}
	if !isGone(numbered(path, 4)) {
		t.Error("a fourth one is kept")
	}
	record, err := r.readLaunched("web")
	if err != nil || record.LogOffset != 0 || record.SerialOffset != 6 {
		t.Errorf("offsets = %+v (%v)", record, err)
	}
	// QEMU goes on writing where the log begins now.
	r.must(r.Quit(t.Context(), "web"))
}

func TestRotateLogs_shortLog_isLeftAlone(t *testing.T) {
	r := newRig(t)
	r.must(os.MkdirAll(r.layout.LogDir("web"), 0o700))
	appendTo(t, r.layout.SerialLog("web"), "short\n")
	r.must(r.RotateLogs("web"))
	if text, err := os.ReadFile(r.layout.SerialLog("web")); err != nil || string(text) != "short\n" {
		t.Errorf("log = %q, %v", text, err)
	}
}
