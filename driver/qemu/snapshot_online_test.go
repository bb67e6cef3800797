package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

var bothDisks = []string{"data", "root"}

func TestTakeSnapshot_diskOfARunningMachine_isOnAllDisksAndRecorded(t *testing.T) {
	b := newSnapBench(t)
	b.start(t)
	b.do(t, "cont", nil, nil)
	obs := b.observe(t)
	if err := b.take(t.Context(), b.vm, obs, diskIntent("nightly")); err != nil {
		t.Fatal(err)
	}
	if got := b.tagged(t, "nightly"); !cmp.Equal(got, bothDisks) {
		t.Errorf("the snapshot is on %q", got)
	}
	record := b.recorded(t, "nightly")
	want := &driver.SnapshotRecord{
		Version: driver.SnapshotRecordVersion, Tag: "nightly", UID: snapUID, Method: manifest.SnapshotDisk, Consistency: ConsistencyCrash, NotQuiesced: ErrNoAgentPort.Error(),
		Disks: []string{"root", "data"}, Launched: obs.Launched, Guest: obs.Guest, Taken: record.Taken, Duration: record.Duration,
	}
	if diff := cmp.Diff(want, record, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the record differs (-want +got):\n%s", diff)
	}
	if age := time.Since(record.Taken); age < 0 || age > time.Minute || record.Duration <= 0 {
		t.Errorf("taken %v, duration %v", record.Taken, record.Duration)
	}
	b.noDraft(t, "nightly")
}

func TestTakeSnapshot_pausedMachineWithReadOnlyDrives_saysWhatIsNotInIt(t *testing.T) {
	b := newSnapBench(t,
		manifest.Disk{Name: "iso", Format: manifest.FormatRaw, Media: manifest.MediaCDROM},
		manifest.Disk{Name: "root", Size: 8 << 20},
		manifest.Disk{Name: "shared", ReadOnly: true},
	)
	b.start(t)
	if err := b.take(t.Context(), b.vm, b.observe(t), diskIntent("a")); err != nil {
		t.Fatal(err)
	}
	record := b.recorded(t, "a")
	if record.Consistency != ConsistencyPaused || !cmp.Equal(record.Disks, []string{"root"}) || !cmp.Equal(record.Without, []string{"iso", "shared"}) {
		t.Errorf("the record is %+v", record)
	}
}

func TestTakeSnapshot_fullOfARunningMachine_isFinishedFromItsJob(t *testing.T) {
	b := newSnapBench(t, manifest.Disk{Name: "given"}, manifest.Disk{Name: "root", Size: 8 << 20})
	b.start(t)
	b.do(t, "cont", nil, nil)
	// The second one needs the id of the first one's job again.
	for _, tag := range []string{"one", "two"} {
		if err := b.take(t.Context(), b.vm, b.observe(t), fullIntent(tag)); err != nil {
			t.Fatal(err)
		}
		if job := b.awaitJob(t); job.Error != "" {
			t.Fatalf("the job failed: %s", job.Error)
		}
		if record, err := b.record("web", tag); record != nil || err != nil {
			t.Errorf("recorded before it is finished: %+v, %v", record, err)
		}
		if err := b.finish(t.Context(), b.vm, b.observe(t), fullIntent(tag)); err != nil {
			t.Fatal(err)
		}
		record := b.recorded(t, tag)
		if record.Consistency != ConsistencyMemory || record.Method != manifest.SnapshotFull || record.Guest == nil || record.Launched == nil {
			t.Errorf("the record is %+v", record)
		}
		if err := b.finish(t.Context(), b.vm, b.observe(t), fullIntent(tag)); err != nil {
			t.Errorf("finishing again: %v", err)
		}
		b.noDraft(t, tag)
	}
	if jobs := b.jobs(t); len(jobs) != 0 {
		t.Errorf("the jobs %+v are not dismissed", jobs)
	}
	found, err := onlinePlace{b.conn}.look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if given, root := found.find("given", "one"), found.find("root", "one"); given == nil || root == nil || given.VMStateSize != 0 || root.VMStateSize == 0 {
		t.Errorf("given has %+v, root %+v: want the memory in the disk that maqet made", given, root)
	}
	if status := b.observe(t).Guest.RunState; status != "running" {
		t.Errorf("the guest is %s after the snapshot", status)
	}
}

func TestTakeSnapshot_leftoverJobOfThatID_isDismissedFirst(t *testing.T) {
	b := newSnapBench(t)
	b.start(t)
	b.do(t, "snapshot-save", map[string]any{"job-id": snapJob, "tag": "old", "vmstate": "root", "devices": []string{"root"}}, nil)
	b.awaitJob(t)
	if err := b.take(t.Context(), b.vm, b.observe(t), fullIntent("new")); err != nil {
		t.Fatal(err)
	}
	b.awaitJob(t)
	if err := b.finish(t.Context(), b.vm, b.observe(t), fullIntent("new")); err != nil {
		t.Error(err)
	}
}

// An observation that is wrong about a disk stands for whatever preflight cannot see.
func lie(obs *driver.Observed) {
	for i := range obs.Guest.Disks {
		obs.Guest.Disks[i].Format = "qcow2"
	}
}

func TestTakeSnapshot_qemuRefusesOneDisk_leavesNothing(t *testing.T) {
	b := newSnapBench(t, manifest.Disk{Name: "root", Size: 8 << 20}, manifest.Disk{Name: "scratch", Format: manifest.FormatRaw})
	b.start(t)
	obs := b.observe(t)
	lie(&obs)
	err := b.take(t.Context(), b.vm, obs, diskIntent("half"))
	var failed *driver.LifecycleError
	if !errors.As(err, &failed) || !failed.Refused || failed.VM != "web" || !strings.Contains(err.Error(), "'scratch'") {
		t.Errorf("got %v, want QEMU's refusal of scratch", err)
	}
	if got := b.tagged(t, "half"); len(got) != 0 {
		t.Errorf("the snapshot is on %q", got)
	}
	b.noRecord(t, "half")
}

func TestFinishSnapshot_jobFailed_returnsItsErrorAndDismissesIt(t *testing.T) {
	b := newSnapBench(t, manifest.Disk{Name: "root", Size: 8 << 20}, manifest.Disk{Name: "scratch", Format: manifest.FormatRaw})
	b.start(t)
	obs := b.observe(t)
	lie(&obs)
	if err := b.take(t.Context(), b.vm, obs, fullIntent("half")); err != nil {
		t.Fatal(err)
	}
	b.awaitJob(t)
	err := b.finish(t.Context(), b.vm, b.observe(t), fullIntent("half"))
	var job *JobError
	var failed *driver.LifecycleError
	if !errors.As(err, &job) || job.ID != snapJob || !strings.Contains(job.Reason, "scratch") || !errors.As(err, &failed) || !failed.Refused {
		t.Errorf("got %v, want the job's error", err)
	}
	if jobs := b.jobs(t); len(jobs) != 0 {
		t.Errorf("the jobs %+v are not dismissed", jobs)
	}
	if got := b.tagged(t, "half"); len(got) != 0 {
		t.Errorf("the snapshot is on %q", got)
	}
	b.noRecord(t, "half")
}

// withMemory gives the machine memory that takes a while to save.
func (b *snapBench) withMemory(t *testing.T) {
	t.Helper()
	const size = 64 << 20
	random, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = random.Close() }()
	chunk := make([]byte, size)
	if _, err := random.Read(chunk); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "memory")
	if err := os.WriteFile(path, chunk, 0o600); err != nil {
		t.Fatal(err)
	}
	b.args = []string{
		"-object", `{"qom-type":"memory-backend-file","id":"ram","mem-path":"` + path + `","size":67108864,"share":true}`,
		"-machine", "memory-backend=ram",
	}
}

func TestTakeSnapshot_longJob_isOnlyBegun(t *testing.T) {
	b := newSnapBench(t)
	b.withMemory(t)
	b.timing.Query = 10 * time.Millisecond
	b.start(t)
	if err := b.take(t.Context(), b.vm, b.observe(t), fullIntent("big")); err != nil {
		t.Fatal(err)
	}
	b.noLater(t, "big")
	b.awaitJob(t)
	if err := b.finish(t.Context(), b.vm, b.observe(t), fullIntent("big")); err != nil {
		t.Fatal(err)
	}
	if record := b.recorded(t, "big"); record.Duration < 10*time.Millisecond {
		t.Errorf("it took %v", record.Duration)
	}
}

// noLater fails when the snapshot is recorded already, or its draft is not there.
func (b *snapBench) noLater(t *testing.T, tag string) {
	t.Helper()
	record, err := b.record("web", tag)
	if record != nil || err != nil {
		t.Errorf("recorded too early: %+v, %v", record, err)
	}
	if draft, err := b.draft("web", tag); draft == nil || err != nil {
		t.Errorf("no draft: %v", err)
	}
}

func TestFinishSnapshot_qemuDiedWhileSaving_isIncompleteAndLeavesSoundDisks(t *testing.T) {
	b := newSnapBench(t)
	b.withMemory(t)
	b.timing.Query = 10 * time.Millisecond
	// Saving takes long, but on a busy machine the kill may come later still.
	for attempt := 0; ; attempt++ {
		b.start(t)
		if err := b.take(t.Context(), b.vm, b.observe(t), fullIntent("big")); err != nil {
			t.Fatal(err)
		}
		b.stop(t)
		err := b.finish(t.Context(), b.vm, b.observe(t), fullIntent("big"))
		if errors.Is(err, ErrSnapshotIncomplete) {
			break
		}
		if err != nil || attempt == 5 {
			t.Fatalf("attempt %d: got %v, want ErrSnapshotIncomplete", attempt, err)
		}
		if err := b.remove(t.Context(), b.vm, b.observe(t), "big"); err != nil {
			t.Fatal(err)
		}
	}
	b.noRecord(t, "big")
	if got := b.tagged(t, "big"); len(got) != 0 {
		t.Errorf("the snapshot is on %q", got)
	}
	if err := b.take(t.Context(), b.vm, b.observe(t), diskIntent("big")); err != nil {
		t.Errorf("taking it of the stopped machine: %v", err)
	}
}

func TestDeleteSnapshot_ofARunningMachine_deletesDataAndRecord(t *testing.T) {
	b := newSnapBench(t)
	b.start(t)
	if err := b.take(t.Context(), b.vm, b.observe(t), diskIntent("disk")); err != nil {
		t.Fatal(err)
	}
	if err := b.take(t.Context(), b.vm, b.observe(t), fullIntent("full")); err != nil {
		t.Fatal(err)
	}
	b.awaitJob(t)
	if err := b.finish(t.Context(), b.vm, b.observe(t), fullIntent("full")); err != nil {
		t.Fatal(err)
	}
	// One disk has lost the tag already, as after a delete that was cut off.
	b.do(t, "blockdev-snapshot-delete-internal-sync", map[string]any{"device": "data", "name": "full"}, nil)
	for _, tag := range []string{"disk", "full", "full", "never-there"} {
		if err := b.remove(t.Context(), b.vm, b.observe(t), tag); err != nil {
			t.Fatalf("%s: %v", tag, err)
		}
		if got := b.tagged(t, tag); len(got) != 0 {
			t.Errorf("%s is still on %q", tag, got)
		}
		b.noRecord(t, tag)
	}
	if jobs := b.jobs(t); len(jobs) != 0 {
		t.Errorf("there are the jobs %+v", jobs)
	}
}

func TestDeleteSnapshot_diskNoMoreInTheMachine_isCleanedToo(t *testing.T) {
	b := newSnapBench(t)
	if err := b.take(t.Context(), b.vm, b.observe(t), diskIntent("old")); err != nil {
		t.Fatal(err)
	}
	data := b.path(b.vm, "data")
	b.vm.Spec.Disks = b.vm.Spec.Disks[:1]
	b.start(t)
	if err := b.remove(t.Context(), b.vm, b.observe(t), "old"); err != nil {
		t.Fatal(err)
	}
	info, err := b.images.Info(t.Context(), data)
	if err != nil || info.Has("old") {
		t.Errorf("the disk that was taken out still has it: %+v, %v", info, err)
	}
	b.noRecord(t, "old")
}

func TestCancelSnapshot_jobThatIsOverOrUnknown_isNotCancellable(t *testing.T) {
	b := newSnapBench(t)
	b.start(t)
	if err := b.cancel(t.Context(), "web", snapJob); !errors.Is(err, ErrNotCancellable) {
		t.Errorf("no job: got %v, want ErrNotCancellable", err)
	}
	if err := b.take(t.Context(), b.vm, b.observe(t), fullIntent("full")); err != nil {
		t.Fatal(err)
	}
	b.awaitJob(t)
	err := b.cancel(t.Context(), "web", snapJob)
	if !errors.Is(err, ErrNotCancellable) || !strings.Contains(err.Error(), "over already") {
		t.Errorf("a job that is over: got %v, want ErrNotCancellable", err)
	}
	if len(b.jobs(t)) != 1 {
		t.Error("cancelling dismissed the job, whose result nobody has seen")
	}
}

func TestCancelSnapshot_jobThatRuns_isOverBeforeQEMUListens(t *testing.T) {
	b := newSnapBench(t)
	b.withMemory(t)
	b.timing.Query = 10 * time.Millisecond
	b.start(t)
	if err := b.take(t.Context(), b.vm, b.observe(t), fullIntent("big")); err != nil {
		t.Fatal(err)
	}
	if err := b.cancel(t.Context(), "web", snapJob); !errors.Is(err, ErrNotCancellable) {
		t.Errorf("got %v, want ErrNotCancellable; does this QEMU cancel snapshots?", err)
	}
	if job := b.awaitJob(t); job.Error != "" {
		t.Errorf("the job failed: %s", job.Error)
	}
}

func TestSnapshots_qemuDoesNotAnswer_isAnErrorWithRemedy(t *testing.T) {
	b := newSnapBench(t)
	obs := driver.Observed{Name: "web", Presence: driver.Unresponsive, Message: "no answer for 3s", Hint: "see dmesg"}
	b.visit = func(context.Context, string, func(context.Context, *qmp.Conn) error) error {
		t.Error("a machine that does not answer was visited")
		return nil
	}
	var blocked *BlockedError
	if err := b.take(t.Context(), b.vm, obs, diskIntent("a")); !errors.As(err, &blocked) || !strings.Contains(err.Error(), "see dmesg") {
		t.Errorf("take: got %v, want a blocker", err)
	}
	if err := b.finish(t.Context(), b.vm, obs, fullIntent("a")); !errors.Is(err, driver.ErrUnresponsive) {
		t.Errorf("finish: got %v", err)
	}
	if err := b.remove(t.Context(), b.vm, obs, "a"); !errors.Is(err, driver.ErrUnresponsive) {
		t.Errorf("delete: got %v", err)
	}
	if _, err := b.restore(t.Context(), b.vm, obs, "a"); !errors.Is(err, driver.ErrUnresponsive) || !strings.Contains(err.Error(), "see dmesg") {
		t.Errorf("restore: got %v", err)
	}
}
