package backups

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/manifest"
)

// MaxChain is how many runs a chain has at most. The next one is a full: restoring reads
// the whole chain, and one bad file of it spoils all that come after.
const MaxChain = 30

// Find is the run of that id, or the newest for "latest".
func Find(runs []driver.BackupRun, id string) (driver.BackupRun, bool) {
	if id == "latest" && len(runs) > 0 {
		return runs[len(runs)-1], true
	}
	i := slices.IndexFunc(runs, func(r driver.BackupRun) bool { return r.ID == id })
	if i < 0 {
		return driver.BackupRun{}, false
	}
	return runs[i], true
}

// Chain are the runs that a run needs, oldest first, itself last. The error names what
// is missing.
func Chain(runs []driver.BackupRun, id string) ([]driver.BackupRun, error) {
	var chain []driver.BackupRun
	for next := id; next != ""; {
		run, ok := Find(runs, next)
		switch {
		case !ok:
			return chain, fmt.Errorf("%w: %s, which %s is the difference to", ErrNoRun, next, id)
		case slices.ContainsFunc(chain, func(r driver.BackupRun) bool { return r.ID == next }):
			return chain, fmt.Errorf("the backup %s is the difference to itself", next)
		}
		chain = append(chain, run)
		next = run.Parent
	}
	slices.Reverse(chain)
	return chain, nil
}

// Usable says why no further run can be the difference to the chain of a run; nil when
// one can. It looks at names, sizes and headers and reads no content.
func Usable(chain []driver.BackupRun) error {
	for _, run := range chain {
		if run.Broken != "" {
			return fmt.Errorf("run %s is broken: %s", run.ID, run.Broken)
		}
		for _, d := range run.Disks {
			if err := checkFile(run, d); err != nil {
				return fmt.Errorf("run %s: %w", run.ID, err)
			}
		}
	}
	if len(chain) >= MaxChain {
		return fmt.Errorf("the chain has %d runs, and more are not made", len(chain))
	}
	return nil
}

// checkFile compares a disk's file with its manifest, as far as that is quick. It is also
// what makes a file safe to be opened: its header names no other file than it should.
func checkFile(run driver.BackupRun, d driver.BackupDisk) error {
	path := filepath.Join(run.Folder, d.File)
	st, err := os.Lstat(path)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", d.File, errors.Unwrap(err))
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is no file", d.File)
	case st.Size() != d.Bytes:
		return fmt.Errorf("%s has %d bytes instead of %d", d.File, st.Size(), d.Bytes)
	}
	h, err := disk.ReadHeader(path)
	if err != nil {
		return err
	}
	want := disk.Header{Format: "qcow2", Size: d.Size, Backing: d.Backing}
	if d.Backing != "" {
		want.BackingFormat = "qcow2"
	}
	if h != want {
		return fmt.Errorf("%s: its header says %+v instead of %+v", d.File, h, want)
	}
	return nil
}

// MarkBroken notes that a run cannot be used; an empty text takes that back.
func MarkBroken(run driver.BackupRun, why string) error {
	path := filepath.Join(run.Folder, brokenFile)
	if why == "" {
		return remove(path)
	}
	return durable.WriteFile(path, []byte(why+"\n"), 0)
}

// Expired are the runs that are kept no longer, those first that nothing else is the
// difference to. A chain goes when the counts keep none of its runs and the schedule made
// all of them. The newest chain stays.
func Expired(runs []driver.BackupRun, keep manifest.Keep, zone *time.Location) []string {
	kept := keptBy(runs, keep, zone, func(driver.BackupRun) bool { return true })
	// One that cannot be used must not push a good one out.
	for id := range keptBy(runs, keep, zone, func(r driver.BackupRun) bool { return !brokenChain(runs, r) }) {
		kept[id] = true
	}
	// The first run of its chain stands for it.
	first, parents := map[string]string{}, map[string]string{}
	for _, r := range runs {
		parents[r.ID] = r.Parent
	}
	for _, r := range runs {
		id := r.ID
		for range runs {
			if parents[id] == "" {
				break
			}
			id = parents[id]
		}
		first[r.ID] = id
	}
	stays := map[string]bool{}
	for i, r := range runs {
		if kept[r.ID] || r.Scheduled.IsZero() || i == len(runs)-1 {
			stays[first[r.ID]] = true
		}
	}
	var gone []string
	for _, r := range slices.Backward(runs) {
		if !stays[first[r.ID]] {
			gone = append(gone, r.ID)
		}
	}
	return gone
}

// keptBy are the scheduled runs that one of the counts keeps, of those that count.
func keptBy(runs []driver.BackupRun, keep manifest.Keep, zone *time.Location, counts func(driver.BackupRun) bool) map[string]bool {
	var made []driver.BackupRun
	var times []time.Time
	for _, r := range slices.Backward(runs) {
		if !r.Scheduled.IsZero() && counts(r) {
			made, times = append(made, r), append(times, r.Scheduled)
		}
	}
	kept := map[string]bool{}
	for i, keeps := range keep.Keeps(times, zone) {
		if keeps {
			kept[made[i].ID] = true
		}
	}
	return kept
}

// brokenChain tells whether a run cannot be used, by itself or for what it needs.
func brokenChain(runs []driver.BackupRun, r driver.BackupRun) bool {
	chain, err := Chain(runs, r.ID)
	return err != nil || slices.ContainsFunc(chain, func(r driver.BackupRun) bool { return r.Broken != "" })
}
