package qemu

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
)

// newLoadBench is a running machine with a finished Full snapshot "full".
func newLoadBench(t *testing.T) *snapBench {
	t.Helper()
	b := newSnapBench(t)
	b.start(t)
	b.do(t, "cont", nil, nil)
	b.saveFull(t, "full")
	return b
}

// saveFull takes a snapshot with memory.
func (b *snapBench) saveFull(t *testing.T, tag string) {
	t.Helper()
	if err := b.take(t.Context(), b.vm, b.observe(t), fullIntent(tag)); err != nil {
		t.Fatal(err)
	}
	b.awaitJob(t)
	if err := b.finish(t.Context(), b.vm, b.observe(t), fullIntent(tag)); err != nil {
		t.Fatal(err)
	}
}

func (b *snapBench) runState(t *testing.T) string {
	t.Helper()
	var status struct{ Status string }
	b.do(t, "query-status", nil, &status)
	return status.Status
}

func TestLoadSnapshot_sameDevices_isLoadedAndTheGuestStaysStopped(t *testing.T) {
	b := newLoadBench(t)
	if _, err := b.load(t.Context(), b.vm, b.observe(t), fullIntent("full")); err != nil {
		t.Fatal(err)
	}
	if job := b.awaitJob(t); job.Error != "" {
		t.Fatalf("the job failed: %s", job.Error)
	}
	if state := b.runState(t); state != "paused" {
		t.Errorf("QEMU says %s: whether the guest may go on is not for the job to say", state)
	}
	if err := b.finishLoad(t.Context(), b.vm, fullIntent("full")); err != nil {
		t.Fatal(err)
	}
	if jobs := b.jobs(t); len(jobs) != 0 {
		t.Errorf("QEMU still has the jobs %v", jobs)
	}
}

// What forbids a load is found before anything has changed, and the guest runs on.
func TestLoadSnapshot_forbidden_guestRunsOn(t *testing.T) {
	b := newLoadBench(t)
	for _, c := range []struct {
		name, want string
		spoil      func(t *testing.T, obs *driver.Observed)
	}{
		{"another device", "nic lan is there now", func(_ *testing.T, obs *driver.Observed) {
			obs.Guest.NICs = append(obs.Guest.NICs, driver.GNIC{Name: "lan", Model: "e1000"})
		}},
		{"a vCPU more", "vCPUs: 1 then, 2 now", func(_ *testing.T, obs *driver.Observed) { obs.Guest.CPUs = 2 }},
		{"another machine", "another machine", func(_ *testing.T, obs *driver.Observed) { obs.Guest.UID = "11111111-2222-3333-4444-555555555555" }},
		{"another firmware", "NVRAM: none then, maqet.nvram.uefi now", func(_ *testing.T, obs *driver.Observed) {
			obs.Guest.NVRAM = &driver.GDisk{Name: driver.FirmwareUEFI.NVRAMNode()}
		}},
		{"a watchdog", "watchdog: none then, i6300esb now", func(_ *testing.T, obs *driver.Observed) { obs.Guest.Watchdog = "i6300esb" }},
		{"a disk lost its tag", "is not on data", func(t *testing.T, _ *driver.Observed) {
			t.Helper()
			b.do(t, "blockdev-snapshot-delete-internal-sync", map[string]any{"device": "data", "name": "full"}, nil)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			obs := b.observe(t)
			c.spoil(t, &obs)
			_, err := b.load(t.Context(), b.vm, obs, fullIntent("full"))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want one with %q", err, c.want)
			}
			if state := b.runState(t); state != "running" {
				t.Errorf("QEMU says %s afterwards", state)
			}
			if jobs := b.jobs(t); len(jobs) != 0 {
				t.Errorf("QEMU has the jobs %v", jobs)
			}
		})
	}
}

// Dirty bitmaps go before a load, and the disks' content is that of then.
func TestLoadSnapshot_dirtyBitmaps_areRemovedAndTold(t *testing.T) {
	b := newLoadBench(t)
	for _, name := range bothDisks {
		b.do(t, "block-dirty-bitmap-add", map[string]any{"node": name, "name": "b0", "persistent": name == "root"}, nil)
	}
	b.saveFull(t, "second") // which a bitmap does not forbid
	bitmaps, err := b.load(t.Context(), b.vm, b.observe(t), fullIntent("full"))
	if want := map[string][]string{"root": {"b0"}, "data": {"b0"}}; err != nil || !cmp.Equal(bitmaps, want) {
		t.Fatalf("removed are %q, %v, want %q", bitmaps, err, want)
	}
	if job := b.awaitJob(t); job.Error != "" {
		t.Fatalf("the job failed: %s", job.Error)
	}
	for _, d := range b.observe(t).Guest.Disks {
		if len(d.Bitmaps) > 0 {
			t.Errorf("disk %s has the bitmaps %q", d.Name, d.Bitmaps)
		}
	}
}

// A bitmap that goes costs the next backup a full, so nothing else may be in the way.
func TestLoadSnapshot_notPossible_keepsDirtyBitmaps(t *testing.T) {
	b := newLoadBench(t)
	b.saveFull(t, "half")
	b.do(t, "blockdev-snapshot-delete-internal-sync", map[string]any{"device": "data", "name": "half"}, nil)
	b.do(t, "block-dirty-bitmap-add", map[string]any{"node": "root", "name": "b0"}, nil)
	for _, c := range []struct {
		name, tag, want string
		spoil           func(t *testing.T)
	}{
		{"a disk lost its tag", "half", "is not on data", func(*testing.T) {}},
		{"a job works with a bitmap", "full", "a job works with", func(t *testing.T) {
			t.Helper()
			target := map[string]any{"driver": "null-co", "node-name": "target", "size": 8 << 20}
			b.do(t, "blockdev-add", target, nil)
			b.do(t, "block-dirty-bitmap-add", map[string]any{"node": "data", "name": "b1"}, nil)
			b.do(t, "blockdev-backup", map[string]any{
				"job-id": "slow", "device": "data", "target": "target", "sync": "full", "bitmap": "b1", "bitmap-mode": "always", "speed": 1,
			}, nil)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.spoil(t)
			bitmaps, err := b.load(t.Context(), b.vm, b.observe(t), fullIntent(c.tag))
			if err == nil || !strings.Contains(err.Error(), c.want) || len(bitmaps) != 0 {
				t.Errorf("removed are %q, and the error is %v, want one with %q", bitmaps, err, c.want)
			}
			if disks := b.observe(t).Guest.Disks; !slices.ContainsFunc(disks, func(d driver.GDisk) bool { return d.Name == "root" && len(d.Bitmaps) == 1 }) {
				t.Errorf("the disks are %+v", disks)
			}
			if state := b.runState(t); state != "running" {
				t.Errorf("QEMU says %s afterwards", state)
			}
		})
	}
}

// A job that failed stays with QEMU: it is what forbids to continue the guest, also to
// whoever looks after this process has died.
func TestFinishLoad_jobFailed_jobStays(t *testing.T) {
	b := newLoadBench(t)
	b.do(t, "stop", nil, nil)
	b.do(t, "snapshot-load", map[string]any{"job-id": snapJob, "tag": "none", "vmstate": "root", "devices": bothDisks}, nil)
	b.awaitJob(t)
	err := b.finishLoad(t.Context(), b.vm, fullIntent("none"))
	var job *JobError
	if !errors.As(err, &job) || !strings.Contains(job.Reason, "none") {
		t.Errorf("the error is %v", err)
	}
	if jobs := b.jobs(t); len(jobs) != 1 {
		t.Errorf("QEMU has the jobs %v", jobs)
	}
}

func TestStartedFrom_takesSpecAndIdentityOfThen(t *testing.T) {
	b := newLoadBench(t)
	record := b.recorded(t, "full")
	record.Launched.Identity = driver.Identity{UID: snapUID, MACs: map[string]string{"lan": "52:54:00:00:00:07"}}
	record.Launched.Spec.Disks = b.vm.Spec.Disks[:1]
	vm, id, err := startedFrom(b.vm, driver.Identity{UID: snapUID}, record)
	if err != nil || len(vm.Spec.Disks) != 1 || id.MACs["lan"] == "" || vm.Metadata.Name != "web" {
		t.Errorf("started from it are %+v, %+v, %v", vm, id, err)
	}
	if _, _, err := startedFrom(b.vm, driver.Identity{UID: "another"}, record); err == nil {
		t.Error("another machine was started from it")
	}
	record.Launched = nil
	if _, _, err := startedFrom(b.vm, driver.Identity{UID: snapUID}, record); err == nil {
		t.Error("it was started from a record without a launch")
	}
}

// What a machine is at: what was taken last, or what it was set back to.
func TestSnapshots_parent_isWhatTheMachineWasAt(t *testing.T) {
	b := newLoadBench(t)
	first := b.recorded(t, "full")
	if first.Parent != "" {
		t.Errorf("the first one came from %q", first.Parent)
	}
	if p := first.Paused; p == nil || p.AtMost || p.Lasted() <= 0 || p.Lasted() > first.Duration {
		t.Errorf("the guest stood still %+v, of %s that it took", p, first.Duration)
	}
	for _, tag := range []string{"second", "third"} {
		if tag == "third" {
			if _, err := b.load(t.Context(), b.vm, b.observe(t), fullIntent("full")); err != nil {
				t.Fatal(err)
			}
			b.awaitJob(t)
			if err := b.finishLoad(t.Context(), b.vm, fullIntent("full")); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.take(t.Context(), b.vm, b.observe(t), diskIntent(tag)); err != nil {
			t.Fatal(err)
		}
		if record := b.recorded(t, tag); record.Parent != "full" || record.Paused != nil {
			t.Errorf("%s came from %q, the guest stood still %v", tag, record.Parent, record.Paused)
		}
	}
	if err := b.remove(t.Context(), b.vm, b.observe(t), "third"); err != nil {
		t.Fatal(err)
	}
	if err := b.take(t.Context(), b.vm, b.observe(t), diskIntent("fourth")); err != nil {
		t.Fatal(err)
	}
	if record := b.recorded(t, "fourth"); record.Parent != "" {
		t.Errorf("it came from %q, which is deleted", record.Parent)
	}
}
