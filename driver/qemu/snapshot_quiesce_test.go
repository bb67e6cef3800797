package qemu

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// shot takes a Disk snapshot of the machine and returns its record; nil without one.
func (r *rig) shot(vm *manifest.VirtualMachine, tag string, how manifest.Quiesce) (*driver.SnapshotRecord, error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patient)
	defer cancel()
	req := driver.SnapshotIntent{Tag: tag, Method: manifest.SnapshotDisk, Quiesce: how}
	err := r.TakeSnapshot(ctx, vm, r.observe(vm, driver.DepthFull, driver.Alive), req)
	return r.observe(vm, driver.DepthFull, driver.Alive).Snapshots[tag].Record, err
}

func TestTakeSnapshot_quiesce_isWhatTheRecordSays(t *testing.T) {
	r, vm := frozenGuest(t)
	r.inGuest("mke2fs /dev/vda && mount -t ext2 /dev/vda /mnt && echo before >/mnt/file")
	record, err := r.shot(vm, "frozen", manifest.QuiesceRequired)
	r.must(err)
	if record.Consistency != ConsistencyQuiesced || record.Frozen != 1 || record.NotQuiesced != "" {
		t.Errorf("required: %s, %d frozen, %q", record.Consistency, record.Frozen, record.NotQuiesced)
	}
	record, err = r.shot(vm, "unasked", manifest.QuiesceNever)
	r.must(err)
	if record.Consistency != ConsistencyCrash || !strings.Contains(record.NotQuiesced, "Never") {
		t.Errorf("never: %s, %q", record.Consistency, record.NotQuiesced)
	}
	if o := r.observe(vm, driver.DepthBrief, driver.Alive); o.Freeze != nil {
		t.Errorf("Freeze afterwards = %+v", o.Freeze)
	}
	r.inGuest("touch /mnt/after")

	// A guest that does not run needs no freeze.
	r.must(r.SetPaused(t.Context(), "web", true))
	record, err = r.shot(vm, "paused", manifest.QuiesceRequired)
	r.must(err)
	if record.Consistency != ConsistencyPaused {
		t.Errorf("paused: %s", record.Consistency)
	}
	r.must(r.SetPaused(t.Context(), "web", false))

	// An agent that refuses.
	r.fakeAgent(map[string]string{
		"guest-fsfreeze-thaw": `{"return": 0}`, "guest-get-fsinfo": `{"return": []}`, "guest-fsfreeze-status": `{"return": "thawed"}`,
		"guest-fsfreeze-freeze": `{"error": {"class": "GenericError", "desc": "a hook failed"}}`,
	})
	record, err = r.shot(vm, "refused", manifest.QuiesceRequired)
	if !errors.Is(err, ErrNotQuiesced) || !strings.Contains(err.Error(), "a hook failed") || record != nil {
		t.Errorf("refused: %v, record %+v", err, record)
	}
	record, err = r.shot(vm, "available", "")
	r.must(err)
	if record.Consistency != ConsistencyCrash || !strings.Contains(record.NotQuiesced, "a hook failed") {
		t.Errorf("refused, if available: %s, %q", record.Consistency, record.NotQuiesced)
	}
	if o := r.observe(vm, driver.DepthFull, driver.Alive); o.Freeze != nil || len(o.Snapshots) != 4 {
		t.Errorf("afterwards: freeze %+v, snapshots %v", o.Freeze, o.Snapshots)
	}
}

// quietBench has a running machine with an agent, whose freeze goes as frozen says.
func quietBench(t *testing.T, frozen *Frozen) (*snapBench, driver.Observed) {
	t.Helper()
	b := newSnapBench(t)
	b.start(t)
	b.do(t, "cont", nil, nil)
	frozen.driver, frozen.over = &Driver{log: slog.New(slog.DiscardHandler)}, true
	b.freeze = func(context.Context, string, time.Duration) (*Frozen, error) { return frozen, nil }
	obs := b.observe(t)
	obs.Guest.Agent = &driver.GAgent{Open: true}
	return b, obs
}

func TestTakeSnapshot_freezeRunsOut_isNotQuiesced(t *testing.T) {
	b, obs := quietBench(t, &Frozen{Count: 1, ranOut: true})
	req := driver.SnapshotIntent{Tag: "a", Method: manifest.SnapshotDisk, Quiesce: manifest.QuiesceRequired}
	if err := b.take(t.Context(), b.vm, obs, req); !errors.Is(err, ErrNotQuiesced) || !errors.Is(err, ErrFreezeRanOut) {
		t.Errorf("required: %v", err)
	}
	if left := b.tagged(t, "a"); len(left) > 0 {
		t.Errorf("it is left on %v", left)
	}
	req.Quiesce = manifest.QuiesceIfAvailable
	if err := b.take(t.Context(), b.vm, obs, req); err != nil {
		t.Fatal(err)
	}
	record, err := b.record("web", "a")
	if err != nil || record.Consistency != ConsistencyCrash || !strings.Contains(record.NotQuiesced, "deadline") {
		t.Errorf("if available: %+v, %v", record, err)
	}
}

func TestTakeSnapshot_nothingCanBeFrozen_isNotQuiesced(t *testing.T) {
	b, obs := quietBench(t, &Frozen{Mountpoints: []string{"/boot/efi"}})
	req := driver.SnapshotIntent{Tag: "a", Method: manifest.SnapshotDisk, Quiesce: manifest.QuiesceRequired}
	if err := b.take(t.Context(), b.vm, obs, req); !errors.Is(err, ErrNotQuiesced) || !strings.Contains(err.Error(), "/boot/efi") {
		t.Errorf("required: %v", err)
	}
}

// TestFinishSnapshot_cutOffWhileFrozen has a draft and a tag that a maqet left which was
// killed before it had thawed.
func TestFinishSnapshot_cutOffWhileFrozen_isTakenAgainWhereRequired(t *testing.T) {
	b, obs := quietBench(t, &Frozen{Count: 1})
	cutOff := func(tag string) {
		req := driver.SnapshotIntent{Tag: tag, Method: manifest.SnapshotDisk}
		draft := newRecord(b.vm, obs, req)
		draft.NotQuiesced = cutOffFrozen
		if err := errors.Join(b.writeDraft("web", draft), onlinePlace{b.conn}.take(t.Context(), draft)); err != nil {
			t.Fatal(err)
		}
	}
	for how, want := range map[manifest.Quiesce]string{manifest.QuiesceRequired: ConsistencyQuiesced, manifest.QuiesceIfAvailable: ConsistencyCrash} {
		tag := "tag-" + strings.ToLower(string(how))
		cutOff(tag)
		if err := b.finish(t.Context(), b.vm, obs, driver.SnapshotIntent{Tag: tag, Method: manifest.SnapshotDisk, Quiesce: how}); err != nil {
			t.Fatal(err)
		}
		record, err := b.record("web", tag)
		if err != nil || record.Consistency != want || (record.NotQuiesced == "") != (want == ConsistencyQuiesced) {
			t.Errorf("%s: %+v, %v", how, record, err)
		}
	}
}
