package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qga"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
)

// inGuest runs a shell line in the guest of the machine web, which has to succeed.
func (r *rig) inGuest(line string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patient)
	defer cancel()
	result, err := r.Exec(ctx, "web", ExecRequest{Command: []string{"sh", "-c", line}})
	r.must(err)
	if result.ExitCode != 0 {
		r.t.Fatalf("%s: exit %d: %s%s", line, result.ExitCode, result.Out, result.Err)
	}
}

// serialShell types into the guest's serial line, which works without the agent.
type serialShell struct {
	t  *testing.T
	nc net.Conn
}

func (r *rig) serialShell(t *testing.T) *serialShell {
	t.Helper()
	nc, err := new(net.Dialer).DialContext(t.Context(), "unix", r.layout.SerialSocket("web"))
	r.must(err)
	t.Cleanup(func() { _ = nc.Close() })
	return &serialShell{t, nc}
}

// expect reads until the guest has written text; it returns what came before.
func (s *serialShell) expect(text string) string {
	s.t.Helper()
	if err := s.nc.SetReadDeadline(time.Now().Add(patient)); err != nil {
		s.t.Fatal(err)
	}
	var all strings.Builder
	b := make([]byte, 1)
	for !strings.HasSuffix(all.String(), text) {
		if _, err := s.nc.Read(b); err != nil {
			s.t.Fatalf("the guest wrote %q (%v), want %q", all.String(), err, text)
		}
		all.Write(b)
	}
	return all.String()
}

// frozenGuest is a guest with a file system on a disk, mounted on /mnt.
func frozenGuest(t *testing.T) (*rig, *manifest.VirtualMachine) {
	t.Helper()
	r := newRig(t)
	vm := r.vm("web", agentGuest(t, ""), agentProbe, func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{Name: "data", Size: 32 << 20}}
	})
	r.start(vm, false)
	r.untilReady(vm)
	return r, vm
}

func TestFreeze_guest_holdsUntilThaw(t *testing.T) {
	r, vm := frozenGuest(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patient)
	defer cancel()

	// Nothing can be frozen yet.
	f, err := r.Freeze(ctx, "web", time.Minute)
	r.must(err)
	if f.Count != 0 || len(f.Mountpoints) > 0 {
		t.Errorf("froze %d of %v in a guest without disks", f.Count, f.Mountpoints)
	}
	r.must(f.Thaw(ctx))

	r.inGuest("mke2fs /dev/vda && mount -t ext2 /dev/vda /mnt && echo before >/mnt/file")
	shell := r.serialShell(t)
	f, err = r.Freeze(ctx, "web", time.Hour)
	r.must(err)
	if diff := cmp.Diff([]string{"/mnt"}, f.Mountpoints); f.Count != 1 || diff != "" {
		t.Errorf("froze %d, mount points: %s", f.Count, diff)
	}
	// What is typed is printed at once; what it does to the disk waits.
	_, err = fmt.Fprint(shell.nc, "touch /mnt/waits; echo wro''te\n")
	r.must(err)
	shell.expect("''te")
	o := r.observe(vm, driver.DepthFull, driver.Alive)
	if o.Freeze == nil || !o.Freeze.Held || o.Freeze.UID != o.Guest.UID || o.Freeze.Who != "test" || len(o.Freeze.Mountpoints) != 1 {
		t.Errorf("Freeze = %+v", o.Freeze)
	}
	names, err := r.FrozenMachines(ctx)
	r.must(err)
	if diff := cmp.Diff([]string{"web"}, names); diff != "" {
		t.Errorf("frozen machines: %s", diff)
	}
	// Nobody else gets at the agent.
	other := rigAt(t, r.layout)
	other.timing.Lock = 50 * time.Millisecond
	if _, err := other.Exec(ctx, "web", ExecRequest{Command: []string{"true"}}); !errors.Is(err, filelock.ErrHeld) {
		t.Errorf("Exec beside a freeze = %v, want ErrHeld", err)
	}
	r.must(f.Thaw(ctx))
	r.must(f.Thaw(ctx)) // does nothing
	if between := shell.expect("wrote"); !strings.Contains(between, "\n") {
		t.Errorf("the guest wrote %q", between)
	}
	if o := r.observe(vm, driver.DepthBrief, driver.Alive); o.Freeze != nil {
		t.Errorf("Freeze after Thaw = %+v", o.Freeze)
	}
	r.must(r.Thaw(ctx, "web")) // nothing is left to do
	r.inGuest("test -e /mnt/waits")

	// The deadline is kept when nobody thaws.
	f, err = r.Freeze(ctx, "web", 200*time.Millisecond)
	r.must(err)
	for o := r.observe(vm, driver.DepthBrief, driver.Alive); o.Freeze != nil; o = r.observe(vm, driver.DepthBrief, driver.Alive) {
		r.must(ctx.Err())
	}
	if err := f.Thaw(ctx); !errors.Is(err, ErrFreezeRanOut) {
		t.Errorf("Thaw after the deadline = %v, want ErrFreezeRanOut", err)
	}
	r.inGuest("touch /mnt/after")
}

// TestHelperFreezes is no test but another maqet, which is killed while a guest's file
// systems are frozen.
func TestHelperFreezes(t *testing.T) {
	if os.Getenv(helperState) == "" {
		t.Skip("it is run by TestThaw_maqetKilledWhileFrozen_isThawedByTheNext")
	}
	r := rigAt(t, layout.Layout{State: os.Getenv(helperState), Run: os.Getenv(helperRun)})
	_, err := r.Freeze(t.Context(), "web", time.Hour)
	r.must(err)
	_, err = os.Stdout.WriteString("frozen\n")
	r.must(err)
	r.must(pause(t.Context(), 10*time.Minute)) // until it is killed
}

func TestThaw_maqetKilledWhileFrozen_isThawedByTheNext(t *testing.T) {
	r, vm := frozenGuest(t)
	r.inGuest("mke2fs /dev/vda && mount -t ext2 /dev/vda /mnt")
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperFreezes$") //nolint:gosec // this very test
	cmd.Env = append(os.Environ(), helperState+"="+r.layout.State, helperRun+"="+r.layout.Run)
	out, err := cmd.StdoutPipe()
	r.must(err)
	r.must(cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "frozen\n" {
		t.Errorf("the helper said %q (%v)", line, err)
	}
	if o := r.observe(vm, driver.DepthBrief, driver.Alive); o.Freeze == nil || !o.Freeze.Held {
		t.Errorf("Freeze while its maker lives = %+v", o.Freeze)
	}
	r.must(cmd.Process.Signal(unix.SIGKILL))
	_ = cmd.Wait() // it was killed
	o := r.observe(vm, driver.DepthBrief, driver.Alive)
	if o.Freeze == nil || o.Freeze.Held || o.Freeze.Failed != "" {
		t.Fatalf("Freeze after its maker was killed = %+v", o.Freeze)
	}

	// While the guest is paused it cannot be thawed, and that is remembered.
	r.must(r.SetPaused(t.Context(), "web", true))
	if err := r.Thaw(t.Context(), "web"); !errors.Is(err, ErrNotResponsive) {
		t.Errorf("Thaw of a paused guest = %v, want ErrNotResponsive", err)
	}
	if o := r.observe(vm, driver.DepthBrief, driver.Alive); o.Freeze == nil || o.Freeze.Failed == "" || o.Freeze.Since.IsZero() {
		t.Errorf("Freeze after a thaw in vain = %+v", o.Freeze)
	}
	r.must(r.SetPaused(t.Context(), "web", false))
	r.must(r.Thaw(t.Context(), "web"))
	if o := r.observe(vm, driver.DepthBrief, driver.Alive); o.Freeze != nil {
		t.Errorf("Freeze after Thaw = %+v", o.Freeze)
	}
	r.inGuest("touch /mnt/after && sync")
}

func TestObserve_markerOfAFreeze_damagedOrOfAnotherProcess(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", withAgentPort)
	r.start(vm, false)
	r.must(r.writeRunFile("web", r.layout.Frozen("web"), driver.Freeze{UID: "another"}))
	if o := r.observe(vm, driver.DepthBrief, driver.Alive); o.Freeze != nil {
		t.Errorf("the marker of another process counts: %+v", o.Freeze)
	}
	// Better to thaw once too often.
	r.must(os.WriteFile(r.layout.Frozen("web"), []byte("{"), 0o600))
	if o := r.observe(vm, driver.DepthBrief, driver.Alive); o.Freeze == nil || o.Freeze.Held {
		t.Errorf("Freeze of a damaged marker = %+v", o.Freeze)
	}
	r.must(r.Quit(t.Context(), "web"))
	r.waitEnd("web")
	r.must(r.ClearRun(t.Context(), "web"))
	if files := r.runFiles(); len(files) > 0 {
		t.Errorf("left in the run dir: %v", files)
	}
}

// fakeAgent answers at the place of the agent of the machine web: what answers has by command, a
// sync by itself, and all else never.
func (r *rig) fakeAgent(answers map[string]string) {
	r.t.Helper()
	path := r.layout.AgentSocket("web")
	r.must(os.Remove(path))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	r.must(err)
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			answerAs(nc, answers)
		}
	}()
	r.t.Cleanup(func() {
		_ = l.Close()
		<-over
	})
}

// flood is an answer of empty lines without end.
const flood = "\n"

// answerAs answers one client until it leaves.
func answerAs(nc net.Conn, answers map[string]string) {
	defer func() { _ = nc.Close() }()
	in := bufio.NewReader(nc)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		var request struct {
			Execute   string
			Arguments struct{ ID int64 }
		}
		if json.Unmarshal([]byte(strings.TrimPrefix(line, "\xff")), &request) != nil {
			return
		}
		if request.Execute == "guest-sync-delimited" {
			fmt.Fprintf(nc, "\xff{\"return\": %d}\n", request.Arguments.ID)
		} else if answer, ok := answers[request.Execute]; ok {
			for more := true; more; more = answer == flood && err == nil {
				_, err = fmt.Fprintf(nc, "%s\n", answer)
			}
		}
	}
}

func TestFreeze_agentFails_isThawedOrMarked(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", withAgentPort)
	r.start(vm, false)
	r.timing.Agent, r.timing.Freeze = 100*time.Millisecond, 500*time.Millisecond
	freeze := func() error {
		leave, err := r.enterAgent(t.Context(), "web")
		r.must(err)
		f := &Frozen{driver: r.Driver, name: "web", leave: leave}
		err = f.begin(t.Context(), time.Minute)
		return errors.Join(err, f.end(t.Context()))
	}
	// It refuses: all is thawed, and nothing is left behind.
	r.fakeAgent(map[string]string{
		"guest-fsfreeze-thaw": `{"return": 0}`, "guest-get-fsinfo": `{"return": []}`, "guest-fsfreeze-status": `{"return": "thawed"}`,
		"guest-fsfreeze-freeze": `{"error": {"class": "GenericError", "desc": "a hook failed"}}`,
	})
	var refused *qga.Error
	if err := freeze(); !errors.As(err, &refused) {
		t.Errorf("freeze = %v, want the refusal", err)
	}
	if o := r.observe(vm, driver.DepthBrief, driver.Alive); o.Freeze != nil {
		t.Errorf("Freeze after a refusal = %+v", o.Freeze)
	}
	// It falls silent, and may freeze later than anybody waits: the marker stays.
	r.fakeAgent(map[string]string{"guest-fsfreeze-thaw": `{"return": 0}`, "guest-get-fsinfo": `{"return": []}`})
	if err := freeze(); !errors.Is(err, qga.ErrNotAnswering) {
		t.Errorf("freeze = %v, want ErrNotAnswering", err)
	}
	if o := r.observe(vm, driver.DepthBrief, driver.Alive); o.Freeze == nil || o.Freeze.Held || o.Freeze.Failed == "" {
		t.Errorf("Freeze after silence = %+v", o.Freeze)
	}
}

// TestFreeze_agentThatFloods_endsInTime has a guest that is never silent and never answers.
func TestFreeze_agentThatFloods_endsInTime(t *testing.T) {
	r := newRig(t)
	r.start(r.vm("web", withAgentPort), false)
	r.timing.Agent, r.timing.Freeze = patient, 500*time.Millisecond
	r.fakeAgent(map[string]string{"guest-fsfreeze-thaw": flood})
	leave, err := r.enterAgent(t.Context(), "web")
	r.must(err)
	f := &Frozen{driver: r.Driver, name: "web", leave: leave}
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	if err := f.begin(ctx, time.Minute); !errors.Is(err, qga.ErrNotAnswering) || ctx.Err() != nil {
		t.Errorf("begin = %v, want ErrNotAnswering, and in time", err)
	}
	r.must(f.end(t.Context()))
}

// stuckLog is a log that nobody reads, as on a terminal that was stopped by Ctrl-S.
type stuckLog struct {
	slog.Handler
	said, goesOn chan struct{}
}

func (l stuckLog) Enabled(context.Context, slog.Level) bool { return true }

func (l stuckLog) Handle(context.Context, slog.Record) error {
	select {
	case l.said <- struct{}{}:
	default: // once is enough
	}
	<-l.goesOn
	return nil
}

// TestFreeze_logIsStuck_thawsAllTheSame has nothing said between freeze and thaw: who
// writes may have to wait for a reader, or dies of having none.
func TestFreeze_logIsStuck_thawsAllTheSame(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", agentGuest(t, ""), agentProbe)
	r.start(vm, false)
	r.untilReady(vm)
	for name, lasts := range map[string]time.Duration{"thawed": time.Hour, "at the deadline": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			log := stuckLog{slog.DiscardHandler, make(chan struct{}, 1), make(chan struct{})}
			other := rigAt(t, r.layout)
			other.log = slog.New(log)
			frozen := make(chan *Frozen, 1)
			over := make(chan struct{})
			go func() {
				defer close(over)
				f, err := other.Freeze(t.Context(), "web", lasts)
				if err == nil && lasts == time.Hour {
					err = f.Thaw(t.Context())
				}
				if err != nil {
					t.Error(err)
				}
				frozen <- f
			}()
			select {
			case <-log.said:
			case <-time.After(patient):
				t.Error("nothing was said")
			}
			if _, err := os.Lstat(r.layout.Frozen("web")); err == nil {
				t.Error("the guest is frozen while something is said")
			}
			close(log.goesOn)
			<-over
			if f := <-frozen; f != nil {
				_ = f.Thaw(t.Context()) // it ran out, or this does nothing
			}
		})
	}
}
