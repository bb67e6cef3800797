package qemu

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOpenHandle_numberOfAThreadOrOfNobody_isNoProcess(t *testing.T) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil || tid == os.Getpid() {
			continue
		}
		tried++
		if _, err := openHandle(tid); !errors.Is(err, errNoProcess) {
			t.Errorf("thread %d: %v, want errNoProcess", tid, err)
		}
	}
	if tried == 0 {
		t.Error("this process has one thread only")
	}
	const beyondAll = 1 << 30
	if _, err := openHandle(beyondAll); !errors.Is(err, errNoProcess) {
		t.Errorf("no process: %v, want errNoProcess", err)
	}
}

func TestHandle_zombie_hasExitedAndIsDead(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h, err := openHandle(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	if h.exited() {
		t.Error("exited before its end")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	if err := h.wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait = %v, want the context's end", err)
	}
	cancel()
	if err := h.signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := h.wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Nobody has reaped it, so that its number still answers.
	if err := unix.Kill(h.pid, 0); err != nil {
		t.Errorf("kill(0) = %v", err)
	}
	d := &Driver{proc: procfs{"/proc"}}
	if _, _, err := d.hold(h.pid); !errors.Is(err, errNoProcess) {
		t.Errorf("hold = %v, want errNoProcess", err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("a killed process ended well")
	}
	if err := h.signal(unix.SIGKILL); err != nil {
		t.Errorf("signal after the end: %v, want nothing", err)
	}
}

func TestScanner_manyAtOnce_shareLooksAndMissNothing(t *testing.T) {
	const uid = "AAAAAAAA-0000-4000-8000-000000000000"
	s := &scanner{proc: procfs{"/proc"}}
	if found, err := s.find(uid); err != nil || len(found) != 0 {
		t.Fatalf("find = %v, %v before there is one", found, err)
	}
	cmd := exec.Command("/bin/sh", "-c", "read -r line", "x", "-uuid", uid)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			found, err := s.find(uid)
			if err != nil || len(found) != 1 || found[0].pid != cmd.Process.Pid || found[0].command() != "sh" {
				t.Errorf("find = %+v, %v", found, err)
			}
		})
	}
	all.Wait()
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // reading nothing is an error of the shell's
	if found, err := s.find(uid); err != nil || len(found) != 0 {
		t.Errorf("find = %v, %v after its end", found, err)
	}
}

// BenchmarkScan is the search of all processes that precedes each start.
func BenchmarkScan(b *testing.B) {
	p := procfs{"/proc"}
	for b.Loop() {
		if _, err := p.guests(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestHandle_closedBesideASignal_saysSo is a child that is reaped while it is killed:
// the one who kills it tells that from a failure.
func TestHandle_closedBesideASignal_saysSo(t *testing.T) {
	h, err := openHandle(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	h.close()
	if err := h.signal(0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("signal = %v, want os.ErrClosed", err)
	}
}
