package backups_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk/backups"
	"github.com/maqet/maqet/manifest"
)

const uid = "0fe4c9d2-3a43-4a57-9f0e-6d4f2b1c8a55"

var day0 = time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)

// run is a run of that day: I after another, F beginning a chain; lower-case by command,
// and ! broken.
func runsOf(pattern string) []driver.BackupRun {
	var runs []driver.BackupRun
	for _, c := range pattern {
		if c == '!' {
			runs[len(runs)-1].Broken = "it is"
			continue
		}
		at := day0.AddDate(0, 0, len(runs))
		r := driver.BackupRun{ID: fmt.Sprintf("%02d", len(runs)), At: at, Type: manifest.BackupFull}
		if strings.ContainsRune("IF", c) {
			r.Scheduled = at
		}
		if strings.ContainsRune("Ii", c) {
			r.Type, r.Parent = manifest.BackupIncremental, runs[len(runs)-1].ID
		}
		runs = append(runs, r)
	}
	return runs
}

func TestExpired_chains_goWhole(t *testing.T) {
	for _, c := range []struct {
		runs string
		keep manifest.Keep
		gone []string
	}{
		{"FFFF", manifest.Keep{Last: 2}, []string{"01", "00"}},
		{"FIII", manifest.Keep{Last: 1}, nil},
		{"FIIF", manifest.Keep{Last: 1}, []string{"02", "01", "00"}},
		{"FIIF", manifest.Keep{Last: 2}, nil},
		{"fIIF", manifest.Keep{Last: 1}, nil},
		{"FIiF", manifest.Keep{Last: 1}, nil},
		{"FiFF", manifest.Keep{Last: 1}, []string{"02"}},
		{"Fff", manifest.Keep{Last: 1}, nil},
		{"FFf", manifest.Keep{Last: 1}, []string{"00"}},
		{"FF!F!", manifest.Keep{Last: 1}, []string{"01"}},
		{"FFI!", manifest.Keep{Last: 1}, []string{"00"}},
		{"FF!", manifest.Keep{Last: 1}, nil},
		{"F", manifest.Keep{Weekly: 1}, nil},
		{"FFFFFFFFF", manifest.Keep{Weekly: 2}, []string{"07", "06", "05", "04", "02", "01", "00"}},
	} {
		got := backups.Expired(runsOf(c.runs), c.keep, time.UTC)
		if diff := cmp.Diff(c.gone, got); diff != "" {
			t.Errorf("%s, %+v (-want +got):\n%s", c.runs, c.keep, diff)
		}
	}
}

// TestExpired_random has the laws: no chain loses a run that another needs, whatever is
// deleted in that order, nothing goes that a person made, and the newest stays.
func TestExpired_random_breaksNoChain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := "F" + rapid.StringMatching(`([FIfi]!?){0,20}`).Draw(t, "runs")
		keep := manifest.Keep{Last: rapid.IntRange(0, 4).Draw(t, "last"), Weekly: rapid.IntRange(0, 3).Draw(t, "weekly")}
		left := runsOf(pattern)
		for _, id := range backups.Expired(left, keep, time.UTC) {
			i := slices.IndexFunc(left, func(r driver.BackupRun) bool { return r.ID == id })
			switch {
			case i < 0:
				t.Fatalf("%s goes twice", id)
			case left[i].Scheduled.IsZero():
				t.Fatalf("%s was made by a person", id)
			case i == len(left)-1 && len(left) == len(runsOf(pattern)):
				t.Fatalf("the newest goes")
			}
			left = slices.Delete(left, i, i+1)
			for _, r := range left {
				if _, err := backups.Chain(left, r.ID); err != nil {
					t.Fatalf("without %s: %v", id, err)
				}
			}
		}
		if len(left) == 0 {
			t.Fatal("nothing stays")
		}
	})
}

func TestChain_damaged_isAnErrorAndEnds(t *testing.T) {
	runs := runsOf("FII")
	runs[0].Parent = "02"
	if _, err := backups.Chain(runs, "02"); err == nil {
		t.Error("a circle is a chain")
	}
	if _, err := backups.Chain(runs[1:], "02"); !errors.Is(err, backups.ErrNoRun) && err == nil {
		t.Errorf("a missing parent: %v", err)
	}
	if err := backups.Usable(runsOf("F" + strings.Repeat("I", backups.MaxChain-1))); err == nil {
		t.Error("a chain grows without end")
	}
}

func TestOpen_target_isMarkedOnceAndKnownAgain(t *testing.T) {
	target := t.TempDir()
	a, err := backups.Open(target, "web", uid, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, mark := range []string{"", a.Mark()} {
		if b, err := backups.Open(target, "db", uid, mark); err != nil || b.Mark() != a.Mark() {
			t.Errorf("a second machine: %v", err)
		}
	}
	if _, err := backups.Open(target, "web", uid, "another"); !errors.Is(err, backups.ErrVanished) {
		t.Errorf("another mark: %v", err)
	}
	if _, err := backups.Open(filepath.Join(target, "no"), "web", uid, ""); !errors.Is(err, backups.ErrNoTarget) {
		t.Errorf("no folder: %v", err)
	}
	if _, err := backups.Open(filepath.Join(target, ".maqet-backup"), "web", uid, ""); !errors.Is(err, backups.ErrNoTarget) {
		t.Errorf("a file: %v", err)
	}
}

// TestRuns_hostileManifest has manifests that would lead elsewhere.
func TestRuns_hostileManifest_isBroken(t *testing.T) {
	for what, change := range map[string]func(*driver.BackupRun){
		"a path":         func(r *driver.BackupRun) { r.Disks[0].File = "../../etc/shadow.qcow2" },
		"a name":         func(r *driver.BackupRun) { r.Disks[0].Name, r.Disks[0].File = "../x", "../x.qcow2" },
		"a backing file": func(r *driver.BackupRun) { r.Disks[0].Backing = "/etc/shadow" },
		"a parent":       func(r *driver.BackupRun) { r.Parent = "../.." },
		"another run":    func(r *driver.BackupRun) { r.ID = "20260101T030000Z-ffff" },
		"a new format":   func(r *driver.BackupRun) { r.Version = 99 },
	} {
		t.Run(what, func(t *testing.T) {
			target := t.TempDir()
			f, err := backups.Open(target, "web", uid, "")
			if err != nil {
				t.Fatal(err)
			}
			id := backups.NewRun(day0)
			dir, err := f.Begin(id)
			if err != nil {
				t.Fatal(err)
			}
			run := driver.BackupRun{Version: driver.BackupRunVersion, ID: id, Disks: []driver.BackupDisk{{Name: "root", File: "root.qcow2"}}}
			change(&run)
			text, err := json.Marshal(run)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "manifest"), text, 0o600); err != nil {
				t.Fatal(err)
			}
			runs, err := f.Runs()
			if err != nil || len(runs) != 1 || runs[0].Broken == "" || len(runs[0].Disks) > 0 {
				t.Errorf("it is %+v, %v", runs, err)
			}
		})
	}
}

func TestRemove_filesOfOthers_stay(t *testing.T) {
	f, err := backups.Open(t.TempDir(), "web", uid, "")
	if err != nil {
		t.Fatal(err)
	}
	id := backups.NewRun(day0)
	dir, err := f.Begin(id)
	if err != nil {
		t.Fatal(err)
	}
	note := filepath.Join(dir, "note.txt")
	if err := os.WriteFile(note, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Remove(id); err == nil || !strings.Contains(err.Error(), "note.txt") {
		t.Errorf("the error is %v", err)
	}
	if err := os.Remove(note); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Remove(id), f.Remove(id)); err != nil {
		t.Error(err)
	}
	if err := f.Remove("../x"); !errors.Is(err, backups.ErrNoRun) {
		t.Errorf("a path: %v", err)
	}
}
