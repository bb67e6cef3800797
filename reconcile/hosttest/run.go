package hosttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

const (
	// patience is how long an act may take to show, far more than any does.
	patience = 2 * time.Minute
	// between is how far apart looks are.
	between = 20 * time.Millisecond
	// ownDisk is the machine's disk that is the host's to make.
	ownDisk = "data"
	// ownSize is what it is made with.
	ownSize = 4 << 20
	// job is the job of a snapshot with memory.
	job = "maqet-snapshot-script"
)

// Run has a host go through one scene of the script: it does one line after the
// other and waits until what is seen is what the line says.
func (s Scene) Run(t *testing.T, h Host) {
	t.Helper()
	p := &player{t: t, Host: h, vm: machine(h.BootDisk(), false)}
	defer p.unwatch()
	for i, line := range s.Lines {
		err := p.do(line.Do)
		if (err != nil) != line.Fails {
			t.Fatalf("line %d, %s: error %v, want one: %v", i+1, line.Do, err, line.Fails)
		}
		if seen, ok := p.becomes(line.Seen); !ok {
			t.Fatalf("line %d, after %s (error %v):\nseen: %s\nwant: %s", i+1, line.Do, err, seen, line.Seen)
		}
	}
}

// player does what the lines of a scene say.
type player struct {
	Host
	t  *testing.T
	vm *manifest.VirtualMachine
	// last is the last observation.
	last driver.Observed
	// stop ends listening; nil when nobody listens.
	stop func()
}

// becomes looks until the machine shows what is wanted.
func (p *player) becomes(want string) (seen string, ok bool) {
	tick := time.NewTicker(between)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		p.last = p.Observe(p.t.Context(), Name, p.vm, driver.DepthFull)
		seen = Seen(p.last)
		if seen == want || time.Now().After(deadline) {
			return seen, seen == want
		}
	}
}

// do does what a line says.
func (p *player) do(line string) error {
	ctx := p.t.Context()
	who, what, _ := strings.Cut(line, " ")
	word, more, _ := strings.Cut(what, " ")
	switch who {
	case "maqet":
		return p.maqet(ctx, word, more)
	case "guest":
		return p.guest(ctx, what)
	case "monitor":
		return p.Monitor(ctx, what)
	case "kernel":
		return p.kernel(ctx, what)
	case "time":
		p.Passes(ctx)
		return nil
	default:
		return fmt.Errorf("the script has nobody called %q", who)
	}
}

// maqet does what the reconciler does.
func (p *player) maqet(ctx context.Context, word, more string) error {
	switch word {
	case "looks":
		return nil
	case "listens":
		return p.watch(ctx)
	case "ignores":
		p.unwatch()
		return nil
	case "identifies":
		_, err := p.EnsureIdentity(ctx, p.vm)
		return err
	case "creates", "grows", "limits":
		return p.disk(ctx, word, more)
	case "starts":
		return p.start(ctx, more)
	case "powers-down":
		return p.Powerdown(ctx, Name)
	case "quits":
		return p.Quit(ctx, Name)
	case "kills":
		return p.Kill(ctx, Name)
	case "pauses":
		return p.SetPaused(ctx, Name, true)
	case "resumes":
		return p.SetPaused(ctx, Name, false)
	case "intends":
		return p.intend(ctx, more)
	case "clears":
		return p.ClearRun(ctx, Name)
	case "forgets":
		_, err := p.Forget(ctx, Name, more == "all")
		return err
	default:
		return p.snapshot(ctx, word, more)
	}
}

// disk makes the machine's own disk, or gives it a size or a limit.
func (p *player) disk(ctx context.Context, word, more string) error {
	vm := p.vm.DeepCopy()
	own := &vm.Spec.Disks[slices.IndexFunc(vm.Spec.Disks, func(d manifest.Disk) bool { return d.Name == ownDisk })]
	switch word {
	case "creates":
		return p.CreateDisk(ctx, vm, ownDisk)
	case "grows":
		size, err := manifest.ParseQuantity(strings.TrimPrefix(more, "to "))
		if err != nil {
			return err
		}
		own.Size = size
		return p.GrowDisk(ctx, vm, p.last, ownDisk)
	default:
		if more != "nothing" {
			iops, err := strconv.Atoi(strings.TrimPrefix(more, "to "))
			if err != nil {
				return err
			}
			own.Throttle = &manifest.Throttle{IOPS: iops}
		}
		return p.ThrottleDisk(ctx, vm, ownDisk)
	}
}

func (p *player) start(ctx context.Context, how string) error {
	vm := p.vm
	if how == "broken" {
		vm = machine(p.BootDisk(), true)
	}
	_, err := p.Start(ctx, driver.StartRequest{VM: vm, Generation: 1, Paused: how == "paused"})
	return err
}

// intend writes an intent for the process that was seen last, or removes it.
func (p *player) intend(ctx context.Context, what string) error {
	if what == "nothing" {
		return p.WriteIntent(ctx, Name, nil)
	}
	in := &driver.Intent{
		Kind: driver.IntentKind(what), Stage: driver.StagePowerdown, Since: time.Now(), Deadline: time.Now().Add(time.Hour),
		Who: "script", UID: p.last.Identity.UID,
	}
	if in.Kind == driver.IntentSnapshot {
		in.Stage, in.Snapshot = "", &driver.SnapshotIntent{Tag: "full", Method: manifest.SnapshotFull, Job: job}
	}
	return p.WriteIntent(ctx, Name, in)
}

// snapshot takes, finishes and deletes snapshots. The one called full has memory.
func (p *player) snapshot(ctx context.Context, word, tag string) error {
	req := driver.SnapshotIntent{Tag: tag, Method: manifest.SnapshotDisk}
	if tag == "full" {
		req = driver.SnapshotIntent{Tag: tag, Method: manifest.SnapshotFull, Job: job}
	}
	switch word {
	case "takes":
		return p.TakeSnapshot(ctx, p.vm, p.last, req)
	case "finishes":
		return p.FinishSnapshot(ctx, p.vm, p.last, req)
	case "deletes":
		return p.DeleteSnapshot(ctx, p.vm, p.last, tag)
	default:
		return fmt.Errorf("the script does not say what %q is", word)
	}
}

func (p *player) guest(ctx context.Context, what string) error {
	does, ok := map[string]Guest{
		"powers off": GuestPowersOff, "resets": GuestResets, "panics": GuestPanics, "hangs": GuestHangs, "goes deaf": GuestGoesDeaf,
	}[what]
	if !ok {
		return fmt.Errorf("the script does not say how a guest %s", what)
	}
	return p.Guest(ctx, does)
}

// kernel sends signals to the process, or ends the boot.
func (p *player) kernel(ctx context.Context, what string) error {
	switch what {
	case "reboots":
		return p.Reboot(ctx)
	case "loses the sockets":
		return p.LoseSockets(ctx)
	}
	signal, ok := map[string]syscall.Signal{
		"kills": syscall.SIGKILL, "aborts": syscall.SIGABRT, "terminates": syscall.SIGTERM, "freezes": syscall.SIGSTOP, "thaws": syscall.SIGCONT,
	}[what]
	if !ok {
		return fmt.Errorf("the script does not say how a kernel %s", what)
	}
	return p.Signal(ctx, signal)
}

// watch begins to listen, and returns when it does.
func (p *player) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	listens, ended := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var failed error
	go func() {
		defer close(ended)
		failed = p.Watch(ctx, Name, func(h driver.Hint) {
			if h.Kind == driver.HintConnected {
				once.Do(func() { close(listens) })
			}
		})
	}()
	p.stop = func() {
		cancel()
		<-ended
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-listens:
		return nil
	case <-ended:
		return errors.Join(errors.New("nobody listens any more"), failed)
	case <-late.C:
		return errors.New("listening takes too long")
	}
}

func (p *player) unwatch() {
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
}
