package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// awaiting runs Await beside the test.
func (r *rig) awaiting(vm *manifest.VirtualMachine, what driver.Awaited) <-chan error {
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	go func() {
		defer cancel()
		done <- r.Await(ctx, vm.Metadata.Name, vm, what)
	}()
	return done
}

func TestAwait_exit_isNoticedOfAnybodysChild(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	own, other := r.awaiting(vm, driver.Awaited{Exit: true}), rigAt(t, r.layout).awaiting(vm, driver.Awaited{Exit: true})
	select {
	case err := <-own:
		t.Fatalf("Await = %v before the end", err)
	case err := <-other:
		t.Fatalf("Await = %v before the end", err)
	case <-time.After(100 * time.Millisecond):
	}
	r.signal("web", unix.SIGKILL)
	r.must(<-own)
	r.must(<-other)
	r.must(r.Await(t.Context(), "web", vm, driver.Awaited{Exit: true})) // It is absent.
}

func TestAwait_contextEnds_returnsIt(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, true)
	for name, what := range map[string]driver.Awaited{
		"exit": {Exit: true}, "ready": {Ready: true},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if err := r.Await(ctx, "web", vm, what); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: Await = %v, want the context's end", name, err)
		}
		cancel()
	}
}

func TestAwait_noJobGoesOn_returns(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	r.must(<-r.awaiting(vm, driver.Awaited{Job: true}))
	// The same when the socket for events is somebody else's.
	lock, err := r.locks.TryLock(r.layout.QMPLock("web"))
	r.must(err)
	r.must(<-rigAt(t, r.layout).awaiting(vm, driver.Awaited{Job: true}))
	r.must(lock.Unlock())
}

func TestAwait_job_returnsWhenItsStatusChanges(t *testing.T) {
	for _, watched := range []bool{false, true} {
		t.Run("socketTaken="+strconv.FormatBool(watched), func(t *testing.T) {
			r := newRig(t)
			vm := r.vm("web", func(s *manifest.VirtualMachineSpec) { s.Disks = []manifest.Disk{sized("root")} })
			r.start(vm, true)
			if watched {
				lock, err := r.locks.TryLock(r.layout.QMPLock("web"))
				r.must(err)
				defer func() { r.must(lock.Unlock()) }()
			}
			// A mirror to nowhere that is slow enough to be waited for.
			do := func(command string, args map[string]any) {
				t.Helper()
				r.must(r.Visit(t.Context(), "web", func(ctx context.Context, c *qmp.Conn) error { return c.Do(ctx, command, args, nil) }))
			}
			do("blockdev-add", map[string]any{"node-name": "nowhere", "driver": "null-co", "size": 1 << 30})
			do("blockdev-backup", map[string]any{
				"job-id": "slow", "device": "root", "target": "nowhere", "sync": "full", "speed": 1, "auto-dismiss": false,
			})
			done := rigAt(t, r.layout).awaiting(vm, driver.Awaited{Job: true})
			select {
			case err := <-done:
				t.Fatalf("Await = %v while the job goes on", err)
			case <-time.After(400 * time.Millisecond):
			}
			do("job-cancel", map[string]any{"id": "slow"})
			r.must(<-done)
		})
	}
}

func TestAwait_resumed_isReadyWithoutProbe(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, true)
	done := rigAt(t, r.layout).awaiting(vm, driver.Awaited{Ready: true})
	r.must(r.SetPaused(t.Context(), "web", false))
	r.must(<-done)
	if o := r.observe(vm, driver.DepthBrief, driver.Alive); !o.Ready {
		t.Error("not Ready")
	}
}

func TestAwait_serialText_isReadyOnceAndForAll(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.Serial = &manifest.Serial{Log: true}
		s.Readiness = &manifest.Readiness{Serial: &manifest.SerialReadiness{Match: `^login: $`}}
	})
	r.must(os.MkdirAll(r.layout.LogDir("web"), 0o700))
	appendTo(t, r.layout.SerialLog("web"), "login: ") // of an earlier run
	r.start(vm, true)
	if o := r.observe(vm, driver.DepthBrief, driver.Alive); o.Ready {
		t.Fatal("Ready by the words of an earlier run")
	}
	done := r.awaiting(vm, driver.Awaited{Ready: true})
	appendTo(t, r.layout.SerialLog("web"), "\nbooting\r\nlog")
	appendTo(t, r.layout.SerialLog("web"), "in: ")
	r.must(<-done)
	o := r.observe(vm, driver.DepthBrief, driver.Alive)
	if !o.Ready || o.Launched.ReadyAt.IsZero() {
		t.Errorf("Ready %v, ReadyAt %s", o.Ready, o.Launched.ReadyAt)
	}
	r.must(os.Truncate(r.layout.SerialLog("web"), 0))
	if o := rigAt(t, r.layout).observe(vm, driver.DepthBrief, driver.Alive); !o.Ready {
		t.Error("another maqet has forgotten it")
	}
	changed := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.Serial = &manifest.Serial{Log: true}
		s.Readiness = &manifest.Readiness{Serial: &manifest.SerialReadiness{Match: "something else"}}
	})
	if o := r.observe(changed, driver.DepthBrief, driver.Alive); o.Ready {
		t.Error("Ready by a probe that is not the desired one")
	}
}

func TestReady_runDirGone_isNotMadeAgain(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	record, err := r.readLaunched("web")
	r.must(err)
	r.must(os.RemoveAll(r.layout.RunDir("web")))
	r.must(r.updateLaunched("web", record, func(l *driver.Launched) { l.ReadyAt = time.Now() }))
	if !isGone(r.layout.RunDir("web")) {
		t.Error("the run dir is there again")
	}
}

func TestSerialScan_pieces_findWhatTheWholeHolds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "serial.log")
	cases := map[string]struct {
		pieces []string
		match  string
		want   bool
	}{
		"split word":         {[]string{"abc lo", "gin", ": "}, "login:", true},
		"over two lines":     {[]string{"log", "\nin:"}, "login:", false},
		"line's end":         {[]string{"ready\r\n"}, "ready$", true},
		"line's beginning":   {[]string{"x\n", "ready"}, "^ready", true},
		"not there":          {[]string{"a\nb\n"}, "c", false},
		"behind a long line": {[]string{string(make([]byte, 3*maxLine)), "\nhere\n"}, "here", true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte("skipped login: ready here c"), 0o600); err != nil {
				t.Fatal(err)
			}
			scan, err := newSerialScan(path, int64(len("skipped login: ready here c")), c.match)
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, piece := range c.pieces {
				appendTo(t, path, piece)
				if found, err = scan.more(); err != nil {
					t.Fatal(err)
				}
			}
			if found != c.want {
				t.Errorf("found = %v, want %v", found, c.want)
			}
			if len(scan.line) > maxLine {
				t.Errorf("%d bytes are kept", len(scan.line))
			}
		})
	}
}
