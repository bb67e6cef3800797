package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/manifest"
)

// draftSuffix ends the name of a record's draft, which is written before the
// first disk is touched and goes when the record is there. It tells a snapshot
// that was cut off from one that somebody else took.
const draftSuffix = ".begun"

// draftAge is how much older than its draft a snapshot may look and still be the
// one that was begun then: QEMU's date and ours come from two readings of one clock.
const draftAge = 2 * time.Second

// newRecord is the record of a snapshot that is about to be taken.
func newRecord(vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) driver.SnapshotRecord {
	record := driver.SnapshotRecord{
		Version: driver.SnapshotRecordVersion, Tag: req.Tag, Method: req.Method, Taken: time.Now().UTC(),
		Consistency: ConsistencyStopped,
	}
	if record.Method == "" {
		record.Method = manifest.SnapshotDisk
	}
	if obs.Identity != nil {
		record.UID = obs.Identity.UID
	}
	record.Disks, record.Without = snapshotDisks(vm, obs)
	if obs.Presence != driver.Alive {
		return record
	}
	record.UID, record.QEMU = obs.Guest.UID, obs.Guest.Version
	record.Launched, record.Guest = obs.Launched, obs.Guest
	switch {
	case record.Method == manifest.SnapshotFull:
		record.Consistency = ConsistencyMemory
	case obs.Guest.RunState == "running":
		record.Consistency = ConsistencyCrash
	default:
		record.Consistency = ConsistencyPaused
	}
	return record
}

// snapshotDisks are the disks that a snapshot of the machine is on, and those that
// the guest cannot write to, in the order of the machine.
func snapshotDisks(vm *manifest.VirtualMachine, obs driver.Observed) (in, without []string) {
	sort := func(name string, writable bool) {
		if writable {
			in = append(in, name)
		} else {
			without = append(without, name)
		}
	}
	if obs.Presence == driver.Alive {
		for _, d := range obs.Guest.Disks {
			sort(d.Name, !d.ReadOnly)
		}
		if obs.Guest.NVRAM != nil {
			in = append(in, obs.Guest.NVRAM.Name)
		}
		return in, without
	}
	for i := range vm.Spec.Disks {
		sort(vm.Spec.Disks[i].Name, writableDisk(&vm.Spec.Disks[i]))
	}
	// It comes last, and is made at the first start with firmware.
	if kind := driver.FirmwareKindOf(&vm.Spec); kind != "" && obs.Files[kind.NVRAMNode()].Exists {
		in = append(in, kind.NVRAMNode())
	}
	return in, without
}

// writeDraft remembers that a snapshot is begun.
func (s *snapshots) writeDraft(vm string, draft driver.SnapshotRecord) error {
	dir := s.layout.SnapshotDir(vm)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("snapshot record: %w", err)
	}
	if err := durable.SyncDir(filepath.Dir(dir)); err != nil {
		return fmt.Errorf("snapshot record: %w", err)
	}
	return writeJSON(s.draftPath(vm, draft.Tag), draft)
}

// writeRecord makes the record, and then removes its draft.
func (s *snapshots) writeRecord(vm string, record driver.SnapshotRecord) error {
	if err := writeJSON(s.layout.Snapshot(vm, record.Tag), record); err != nil {
		return err
	}
	return s.dropDraft(vm, record.Tag)
}

// atFile names the file that holds the tag that the machine is at. No record has a
// name that begins with a dot.
const atFile = ".at"

// at is the tag that the machine is at; empty when there is none or it is not known.
// It only tells people how snapshots follow from one another.
func (s *snapshots) at(vm string) string {
	text, err := os.ReadFile(filepath.Join(s.layout.SnapshotDir(vm), atFile))
	if err != nil {
		return ""
	}
	tag := strings.TrimSpace(string(text))
	if record, err := s.record(vm, tag); err != nil || record == nil {
		return ""
	}
	return tag
}

// setAt remembers the tag that the machine is at.
func (s *snapshots) setAt(ctx context.Context, vm, tag string) {
	err := durable.WriteFile(filepath.Join(s.layout.SnapshotDir(vm), atFile), []byte(tag+"\n"), durable.DefaultPerm)
	if err != nil {
		s.log.WarnContext(ctx, "which snapshot the machine is at is not remembered", "vm", vm, "tag", tag, "err", err)
	}
}

// dropDraft forgets that a snapshot was begun.
func (s *snapshots) dropDraft(vm, tag string) error { return removeFile(s.draftPath(vm, tag)) }

// dropRecord removes what is recorded of a snapshot whose data is gone.
func (s *snapshots) dropRecord(vm, tag string) error {
	return errors.Join(removeFile(s.layout.Snapshot(vm, tag)), s.dropDraft(vm, tag))
}

func (s *snapshots) draftPath(vm, tag string) string {
	return filepath.Join(s.layout.SnapshotDir(vm), tag+draftSuffix)
}

// record reads the record of a snapshot; nil when there is none.
func (s *snapshots) record(vm, tag string) (*driver.SnapshotRecord, error) {
	return readRecord(s.layout.Snapshot(vm, tag), tag)
}

// draft reads the draft of a snapshot's record; nil when there is none.
func (s *snapshots) draft(vm, tag string) (*driver.SnapshotRecord, error) {
	return readRecord(s.draftPath(vm, tag), tag)
}

// readRecord reads one record and checks that it is of the tag and of a format
// that is known here.
func readRecord(path, tag string) (*driver.SnapshotRecord, error) {
	record, err := readRecordFile[driver.SnapshotRecord](path, "remove the file; the disks keep the snapshot")
	switch {
	case err != nil:
		return nil, fmt.Errorf("snapshot record: %w", err)
	case record == nil:
		return nil, nil //nolint:nilnil // no record is an answer of its own
	case record.Version < 1 || record.Version > driver.SnapshotRecordVersion:
		return nil, fmt.Errorf("snapshot record %s: it has format %d, and this maqet knows 1 to %d", path, record.Version, driver.SnapshotRecordVersion)
	case record.Tag != tag:
		return nil, fmt.Errorf("snapshot record %s: it is of the snapshot %q", path, record.Tag)
	default:
		return record, nil
	}
}

func writeJSON(path string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return durable.WriteFile(path, append(text, '\n'), durable.DefaultPerm)
}

// removeFile removes a file durably; a file that is not there is no error.
func removeFile(path string) error {
	err := os.Remove(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("snapshot record: %w", err)
	default:
		return durable.SyncDir(filepath.Dir(path))
	}
}
