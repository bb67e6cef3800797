package bench

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestProcess_linesAfterTheMark_areWaitedFor(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p, err := s.lab.begin([]string{"WORD=two"}, "sh", "-c", "echo one; read go; echo $WORD; exec sleep 60")
	if err != nil {
		t.Fatal(err)
	}
	// Its standard input is empty, so it goes on at once.
	if err := p.await(t.Context(), 0, says("two"), 1); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.await(short, p.mark(), says("two"), 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the end of the wait: it was said before the mark", err)
	}
	if memory, err := p.memory("Rss"); err != nil || memory < 1e4 {
		t.Errorf("memory %v, error %v", memory, err)
	}
	if err := p.end(); err != nil {
		t.Errorf("end: %v", err)
	}
}

func TestProcess_endsUnasked_errorShowsItsLastLines(t *testing.T) {
	t.Parallel()
	p, err := newSite(t).lab.begin(nil, "sh", "-c", "echo it failed; exit 7")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.await(t.Context(), 0, says("never"), 1); !errors.Is(err, errEnded) || !strings.Contains(err.Error(), "it failed") {
		t.Errorf("error %v, want that it ended, with what it said", err)
	}
	if err := p.end(); err != nil {
		t.Errorf("end: %v", err)
	}
}

func TestProcessorTime_nameWithParentheses_isReadBehindIt(t *testing.T) {
	t.Parallel()
	got, err := processorTime([]byte("4711 (a) b 1 (c) S 1 2 3 4 5 6 7 8 9 10 250 31 0 0 20 0 9 0 100 200 300"))
	if err != nil || got != 2810*time.Millisecond {
		t.Errorf("%v, error %v; want 2.81s", got, err)
	}
	for _, text := range []string{"", "4711 (a) S 1", "4711 (a) S 1 2 3 4 5 6 7 8 9 10 x 31 0"} {
		if _, err := processorTime([]byte(text)); !errors.Is(err, errProc) {
			t.Errorf("%q: error %v, want %v", text, err, errProc)
		}
	}
}

func TestConnected_tableOfSockets_connectionsOnly(t *testing.T) {
	t.Parallel()
	const table = `Num       RefCount Protocol Flags    Type St Inode Path
0000000055: 00000002 00000000 00010000 0001 01 1001 /r/idle/qmp.sock
0000000056: 00000002 00000000 00010000 0001 01 1002 /r/web/qmp.sock
0000000057: 00000003 00000000 00000000 0001 03 1003 /r/web/qmp.sock
0000000058: 00000003 00000000 00000000 0001 03 1004
`
	for path, want := range map[string]bool{"/r/web/qmp.sock": true, "/r/idle/qmp.sock": false, "/r/we": false, "/r/none": false} {
		if got := connected(table, path); got != want {
			t.Errorf("%s: connected %v, want %v", path, got, want)
		}
	}
}

func TestChanged_linesOfAWatch_matchesMachineAndPhase(t *testing.T) {
	t.Parallel()
	const line = `time=2026-01-02T03:04:05Z level=INFO msg="a machine changed" vm=vm0001 phase=Running reason=""`
	if !changed("vm0001", "Running")(line) || !changed("", "Running")(line) {
		t.Error("the line does not match its own machine and phase")
	}
	if changed("vm0002", "Running")(line) || changed("vm0001", "Run")(line) || changed("vm0001", "Stopped")(line) {
		t.Error("the line matches another machine or phase")
	}
}
