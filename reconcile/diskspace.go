package reconcile

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// When the filesystem of a machine's disks counts as nearly full: when less than one
// part in lowShare of it is free, or less than lowMost if that is less. A warning that
// was given stays until a quarter more than that is free.
const (
	lowShare = 10
	lowMost  = 10 << 30
)

// filesystem is one that holds disks of a machine.
type filesystem struct {
	folder      string
	free, total int64
	// grow is by how much the disks on it may still grow together.
	grow  int64
	disks []string
}

// lowSpace says which filesystems of a machine's disks are nearly full while the disks
// may still grow by more than is free; empty when none is. Disks that have all their
// space already are in no danger, however full the filesystem is. Warned tells that it
// was said before.
func lowSpace(spec *manifest.VirtualMachineSpec, obs *driver.Observed, warned bool) string {
	all := map[uint64]*filesystem{}
	for i := range spec.Disks {
		d := &spec.Disks[i]
		f := obs.Files[d.Name]
		size := imageSize(obs, d.Name)
		if d.ReadOnly || f.Total == 0 || size == 0 {
			continue
		}
		on := all[f.Filesystem]
		if on == nil {
			on = &filesystem{folder: filepath.Dir(f.Path), free: f.Free, total: f.Total}
			all[f.Filesystem] = on
		}
		on.grow += max(size-f.Allocated, 0)
		if hasSnapshot(obs, d.Name) {
			// What a snapshot keeps is written anew beside it.
			on.grow += size
		}
		on.disks = append(on.disks, d.Name)
	}
	var words []string
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if on := all[id]; on.low(warned) {
			words = append(words, fmt.Sprintf("%s free of %s below %s, where disk %s may still grow by %s",
				roughly(on.free), roughly(on.total), on.folder, strings.Join(on.disks, ", "), roughly(on.grow)))
		}
	}
	return strings.Join(words, "; ")
}

func (f *filesystem) low(warned bool) bool {
	limit := min(f.total/lowShare, lowMost)
	if warned {
		limit += limit / 4
	}
	return f.free < limit && f.grow > f.free
}

// hasSnapshot tells whether a disk has an internal snapshot.
func hasSnapshot(obs *driver.Observed, disk string) bool {
	for _, s := range obs.Snapshots {
		if slices.Contains(s.Disks, disk) {
			return true
		}
	}
	return false
}

// diskConditions adds what is to be said of a machine's disks.
func diskConditions(m *state.Machine, obs *driver.Observed, add func(kind, reason, message string)) {
	if obs.Guest != nil && obs.Guest.RunState == runIOError {
		add(ConditionIOError, ReasonIOError, ioErrorWords(obs))
	}
	if m == nil {
		return
	}
	if low := lowSpace(&m.Object.Spec, obs, wasTrue(m, ConditionDiskSpaceLow)); low != "" {
		add(ConditionDiskSpaceLow, ReasonNearlyFull, low)
	}
}

// wasTrue tells whether a condition was true when the machine was last looked at.
func wasTrue(m *state.Machine, condition string) bool {
	return m != nil && conditionOf(m.Conditions, condition).Status == "True"
}

// roughly writes a number of bytes for reading.
func roughly(n int64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB"}
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", value), ".0") + " " + units[unit]
}

// QEMU's words for how a drive fares, as query-block says.
const (
	ioNoSpace = "nospace"
	ioFailed  = "failed"
)

// failedDisks are the drives for which QEMU has stopped the guest.
func failedDisks(obs *driver.Observed) []driver.GDisk {
	var all []driver.GDisk
	if obs.Guest == nil {
		return nil
	}
	for _, d := range obs.Guest.Disks {
		if d.IOStatus == ioNoSpace || d.IOStatus == ioFailed {
			all = append(all, d)
		}
	}
	return all
}

// ioErrorWords say which disk failed, and how its filesystem is.
func ioErrorWords(obs *driver.Observed) string {
	failed := failedDisks(obs)
	if len(failed) == 0 {
		return "QEMU stopped the guest because a disk failed"
	}
	var words []string
	for _, d := range failed {
		text := "disk " + d.Name + " (" + d.File + ") has failed"
		if d.IOStatus == ioNoSpace {
			text = "there was no space for disk " + d.Name + " (" + d.File + ")"
		}
		if f := obs.Files[d.Name]; f.Total > 0 {
			text += fmt.Sprintf(", %s of %s are free there", roughly(f.Free), roughly(f.Total))
		}
		words = append(words, text)
	}
	return "QEMU stopped the guest: " + strings.Join(words, "; ")
}

// leastRoom is what has to be free for the write of a guest to be tried again: a qcow2
// grows by clusters, of 64 KiB mostly and of 2 MiB at most.
const leastRoom = 1 << 20

// noRoom tells that a disk for which there was no space has none still, as far as that
// can be seen.
func noRoom(obs *driver.Observed) bool {
	return slices.ContainsFunc(failedDisks(obs), func(d driver.GDisk) bool {
		f := obs.Files[d.Name]
		return d.IOStatus == ioNoSpace && f.Total > 0 && f.Free < leastRoom
	})
}

// ioError plans for a guest that QEMU stopped since a disk failed. It runs on only when
// a person says so, once: running on by itself might fail again, and again.
func (p *planner) ioError(paused bool) {
	name := p.plan.Machine
	if p.opt.Resume && !paused && !noRoom(&p.obs) {
		p.change(Change{Path: "spec.powerState", From: runIOError, To: string(manifest.PowerRunning), Class: ClassLive})
		p.step(Step{Kind: StepResume, Why: "it was asked to run on"})
		return
	}
	hint := "repair the storage, then run maqet resume " + name
	if failed := failedDisks(&p.obs); len(failed) == 0 || failed[0].IOStatus == ioNoSpace {
		hint = "make room, then run maqet resume " + name
	}
	p.problem(ReasonIOError, ioErrorWords(&p.obs), hint)
}
