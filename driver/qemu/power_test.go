package qemu

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

func TestSetPaused_runningMachine_stopsAndContinues(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, true)
	states := []string{r.observe(vm, driver.DepthBrief, driver.Alive).Guest.RunState}
	for _, paused := range []bool{false, true, false} {
		r.must(r.SetPaused(t.Context(), "web", paused))
		o := r.observe(vm, driver.DepthBrief, driver.Alive)
		states = append(states, o.Guest.RunState)
		if o.Ready == paused {
			t.Errorf("paused %v: Ready = %v", paused, o.Ready)
		}
	}
	if diff := cmp.Diff([]string{"prelaunch", "running", "paused", "running"}, states); diff != "" {
		t.Errorf("run states (-want +got):\n%s", diff)
	}
}

func TestPower_absentMachine_isFineOrSaysSo(t *testing.T) {
	r := newRig(t)
	r.must(r.Powerdown(t.Context(), "web"))
	r.must(r.Quit(t.Context(), "web"))
	r.must(r.Kill(t.Context(), "web"))
	err := r.SetPaused(t.Context(), "web", true)
	if !errors.Is(err, ErrNotRunning) || !strings.HasPrefix(err.Error(), "pause web: ") {
		t.Errorf("SetPaused = %v, want ErrNotRunning", err)
	}
	err = r.Visit(t.Context(), "web", func(context.Context, *qmp.Conn) error { return nil })
	if !errors.Is(err, ErrNotRunning) {
		t.Errorf("Visit = %v, want ErrNotRunning", err)
	}
}

func TestPower_badName_isRefused(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"", "../x", "locks", ".state-id", "a/b"} {
		if err := r.Kill(t.Context(), name); err == nil {
			t.Errorf("Kill(%q) succeeded", name)
		}
		if _, err := r.Lock(t.Context(), name); err == nil {
			t.Errorf("Lock(%q) succeeded", name)
		}
		if o := r.Observe(t.Context(), name, nil, driver.DepthFull); o.Presence != driver.Unknown {
			t.Errorf("Observe(%q) = %s", name, o.Presence)
		}
	}
}

func TestVisit_refusalOfQEMU_isReturnedAsItIs(t *testing.T) {
	r := newRig(t)
	r.start(r.vm("web", bareBoard), false)
	err := r.Visit(t.Context(), "web", func(ctx context.Context, c *qmp.Conn) error {
		return c.Do(ctx, "no-such-command", nil, nil)
	})
	if !qmp.IsCommandNotFound(err) || lifecycle(err) != nil {
		t.Errorf("Visit = %v, want QEMU's own refusal", err)
	}
}

func TestPowerdown_machineWithoutListeningGuest_runsOn(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web")
	r.start(vm, true)
	r.must(r.Powerdown(t.Context(), "web"))
	r.observe(vm, driver.DepthBrief, driver.Alive)
}

func TestEnsureIdentity_again_changesNothing(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.NICs = []manifest.NIC{userNIC("lan")}
		s.Disks = []manifest.Disk{sized("root")}
	})
	first, err := r.EnsureIdentity(t.Context(), vm)
	r.must(err)
	before, err := os.Stat(r.layout.Identity("web"))
	r.must(err)
	second, err := rigAt(t, r.layout).EnsureIdentity(t.Context(), vm)
	r.must(err)
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("identity changed (-first +second):\n%s", diff)
	}
	after, err := os.Stat(r.layout.Identity("web"))
	r.must(err)
	if !after.ModTime().Equal(before.ModTime()) {
		t.Error("the file was written again")
	}
	cmd, err := r.Render(t.Context(), vm)
	r.must(err)
	if argvUUID(cmd.Argv) != first.UID {
		t.Errorf("Render uses uuid %s, want the recorded %s", argvUUID(cmd.Argv), first.UID)
	}
}

func TestEnsureIdentity_damagedOrNewerFile_isRefusedAndKept(t *testing.T) {
	for name, content := range map[string]string{"damaged": "{\"uid\":", "newer": "{\"version\": 99}"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.must(os.MkdirAll(r.layout.DiskDir("web"), 0o700))
			r.must(os.WriteFile(r.layout.Identity("web"), []byte(content), 0o600))
			_, err := r.EnsureIdentity(t.Context(), r.vm("web"))
			var record *RecordError
			if !errors.As(err, &record) || record.Path != r.layout.Identity("web") || record.Hint == "" {
				t.Errorf("EnsureIdentity = %v, want a RecordError with a hint", err)
			}
			if text, err := os.ReadFile(r.layout.Identity("web")); err != nil || string(text) != content {
				t.Errorf("the file holds %q (%v)", text, err)
			}
		})
	}
}

func TestRender_machineWithoutIdentity_writesNothing(t *testing.T) {
	r := newRig(t)
	cmd, err := r.Render(t.Context(), r.vm("web"))
	r.must(err)
	if argvUUID(cmd.Argv) == "" {
		t.Errorf("argv %q has no uuid", cmd.Argv)
	}
	if _, err := os.Stat(r.layout.DiskDir("web")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("disk folder: %v, want none", err)
	}
}

func TestWriteIntent_writtenAndRemoved(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	uid := r.observe(vm, driver.DepthBrief, driver.Alive).Identity.UID
	want := &driver.Intent{Kind: driver.IntentStop, Stage: driver.StageQuit, Since: time.Now().UTC().Round(0), Who: "test", UID: uid}
	r.must(r.WriteIntent(t.Context(), "web", want))
	if diff := cmp.Diff(want, r.observe(vm, driver.DepthBrief, driver.Alive).Intent); diff != "" {
		t.Errorf("intent (-want +got):\n%s", diff)
	}
	r.rewriteLaunched("web", func(l *driver.Launched) { l.BootID = "another" })
	if o := r.Observe(t.Context(), "web", vm, driver.DepthBrief); o.Intent != nil {
		t.Errorf("Intent of another boot = %+v, want none", o.Intent)
	}
	r.must(r.WriteIntent(t.Context(), "web", nil))
	r.must(r.WriteIntent(t.Context(), "web", nil))
	if !isGone(r.layout.Intent("web")) {
		t.Error("the intent is still there")
	}
}

func TestClearRun_runningMachine_isRefused(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	if err := r.ClearRun(t.Context(), "web"); err == nil || !strings.Contains(err.Error(), "maqet stop web") {
		t.Errorf("ClearRun = %v, want a refusal", err)
	}
	if _, err := r.Forget(t.Context(), "web", false); err == nil {
		t.Error("Forget of a running machine succeeded")
	}
	r.observe(vm, driver.DepthBrief, driver.Alive)
}

func TestForget_keep_movesDisksAside(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) { s.Disks = []manifest.Disk{sized("root")} })
	kept := map[string]bool{}
	for range 2 {
		r.start(vm, true)
		k := r.childOf("web")
		r.must(r.Quit(t.Context(), "web"))
		r.waitChild(k)
		id := r.observe(vm, driver.DepthBrief, driver.Absent).Identity
		at, err := r.Forget(t.Context(), "web", false)
		r.must(err)
		if !strings.HasPrefix(filepath.Base(at), "web-"+id.UID[:8]) {
			t.Errorf("kept at %s", at)
		}
		for _, file := range []string{"root.qcow2", "identity.json"} {
			if _, err := os.Stat(filepath.Join(at, file)); err != nil {
				t.Error(err)
			}
		}
		kept[at] = true
		for _, path := range []string{r.layout.DiskDir("web"), r.layout.RunDir("web"), r.layout.LogDir("web")} {
			if !isGone(path) {
				t.Errorf("%s is still there", path)
			}
		}
	}
	if len(kept) != 2 {
		t.Errorf("kept at %v, want two folders", kept)
	}
	if at, err := r.Forget(t.Context(), "web", false); err != nil || at != "" {
		t.Errorf("Forget again = %q, %v, want nothing", at, err)
	}
}

func TestForget_sameFolderThere_takesAnotherName(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web")
	id, err := r.EnsureIdentity(t.Context(), vm)
	r.must(err)
	there := r.layout.Kept("web", id.UID[:8])
	r.must(os.MkdirAll(there, 0o700))
	at, err := r.Forget(t.Context(), "web", false)
	r.must(err)
	if at != there+"-2" {
		t.Errorf("kept at %s, want %s-2", at, there)
	}
}

func TestForget_delete_removesDisks(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) { s.Disks = []manifest.Disk{sized("root")} })
	_, err := r.EnsureIdentity(t.Context(), vm)
	r.must(err)
	r.must(r.CreateDisk(t.Context(), vm, "root"))
	at, err := r.Forget(t.Context(), "web", true)
	if err != nil || at != "" {
		t.Errorf("Forget = %q, %v", at, err)
	}
	if !isGone(r.layout.DiskDir("web")) || !isGone(filepath.Dir(r.layout.Kept("web", "00000000"))) {
		t.Error("something is still there")
	}
}

func TestCreateDisk_whatIsNotMaqets_isRefused(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{Name: "iso", File: "/srv/x.iso", Format: manifest.FormatRaw}}
	})
	for _, name := range []string{"iso", "nosuch"} {
		if err := r.CreateDisk(t.Context(), vm, name); lifecycle(err) == nil {
			t.Errorf("CreateDisk(%s) = %v, want a LifecycleError", name, err)
		}
	}
}
