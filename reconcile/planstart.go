package reconcile

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// absent plans for a machine that has no process.
func (p *planner) absent() {
	if p.obs.Ended != nil {
		p.step(Step{Kind: StepRecordEnd, Why: endWords(p.obs.Ended)})
	} else if p.obs.Intent != nil {
		p.step(Step{Kind: StepClearIntent, Why: "its process is gone"})
	}
	if p.rec.Deleting != nil {
		p.forget()
		return
	}
	if p.rec.Restore != nil && !p.opt.Stop {
		p.restoreAbsent()
		return
	}
	grow, _ := p.sizes()
	p.provisioning()
	images := p.imageChanges()
	p.showImages(images)
	said := anew(images)
	starts := p.power != manifest.PowerStopped && !p.opt.Stop && p.mayStart()
	for _, s := range grow {
		// What QEMU can grow it grows once it runs: then a failure stops no start. What
		// is made anew has the new size then.
		disk := func(d manifest.Disk) bool { return d.Name == s.Disk && (!starts || isNVMe(d)) }
		if slices.ContainsFunc(p.spec.Disks, disk) && !slices.ContainsFunc(disksOf(said), disk) {
			p.step(s)
		}
	}
	switch {
	case starts:
		p.start(said)
	case p.plan.Wait == nil && p.ready(disksOf(said)):
		p.recreate(said)
	}
	p.snapshots()
}

// forget ends a delete.
func (p *planner) forget() {
	deleteDisks := p.rec.Deleting.DeleteDisks ||
		p.spec.OnDelete != nil && p.spec.OnDelete.Disks == manifest.DisksDelete
	why := "its disks are kept"
	if deleteDisks {
		why = "its disks are deleted, as was said"
	}
	p.step(Step{Kind: StepForget, DeleteDisks: deleteDisks, Why: why})
}

// isCompleted tells that the guest powered itself off and nothing has changed
// since: that lasts until the spec changes or somebody starts it.
func isCompleted(rec *state.Machine, obs *driver.Observed) bool {
	t := lastTermination(rec, obs)
	return t != nil && t.Generation == rec.Generation && verdictOf(policyOf(rec), t.Cause) == verdictCompleted
}

// lastTermination is how the last process ended, recorded yet or not; nil when
// there was none, or when it went without a trace.
func lastTermination(rec *state.Machine, obs *driver.Observed) *state.Termination {
	switch {
	case obs.Ended != nil:
		return terminationOf(rec, obs)
	case rec.LastTermination == nil || rec.LastTermination.Superseded:
		return nil
	default:
		return rec.LastTermination
	}
}

// terminationOf is the termination record of the end that is observed.
func terminationOf(rec *state.Machine, obs *driver.Observed) *state.Termination {
	e := obs.Ended
	t := &state.Termination{Cause: e.Cause, At: e.At, Boot: e.Boot, Exit: e.Exit, LastLine: e.LastLine, Generation: rec.Generation}
	if obs.Launched != nil {
		t.Generation, t.StartedAt = obs.Launched.Generation, obs.Launched.At
	}
	return t
}

// start plans a start, or says what it lacks. Some disks are made anew first.
func (p *planner) start(anew []imageChange) {
	paused := p.power == manifest.PowerPaused
	t := lastTermination(p.rec, &p.obs)
	p.change(Change{
		Path: "spec.powerState", From: string(manifest.PowerStopped), To: string(p.power), Class: ClassLive,
		Why: "the machine is started", Drift: p.ran() && (t == nil || unwanted(t.Cause)),
	})
	if p.obs.Identity == nil && p.rec.UID != "" {
		p.problem(ReasonIdentityLost,
			"the machine has run with the uuid "+p.rec.UID+", but its identity file is gone from the state dir",
			"bring its folder below disks/ back, or run maqet delete "+p.plan.Machine+" and apply again for a new, empty machine")
		return
	}
	creates, ok := p.disksToCreate()
	again, readable := p.lost()
	if !ok || !readable || p.nvramLost() || !p.ready(slices.Concat(creates, again, disksOf(anew))) {
		return
	}
	if why := p.identityLacks(); why != "" {
		p.step(Step{Kind: StepIdentity, Why: why})
	}
	p.recreate(anew)
	for _, d := range creates {
		p.create(d)
	}
	p.step(Step{Kind: StepStart, Paused: paused, Why: p.startWords(t)})
}

// disksToCreate are the disks to make first; not ok when one is missing that
// maqet must not make.
func (p *planner) disksToCreate() (creates []manifest.Disk, ok bool) {
	ok = true
	for _, d := range p.spec.Disks {
		f := p.obs.Files[d.Name]
		switch {
		case d.IsEmpty():
		case f.Err != "":
			ok = false
			p.problem(ReasonDiskUnknown, fmt.Sprintf("disk %s could not be looked at: %s", d.Name, f.Err),
				"see whether "+cmp.Or(f.Path, d.File)+" can be read and is what the manifest says")
		case f.Exists:
		case !d.IsMade():
			ok = false
			p.problem(ReasonDiskMissing, fmt.Sprintf("disk %s: there is no %s", d.Name, missing(&d, f)),
				"make it or correct spec.disks["+d.Name+"]")
		case p.replaced(d):
			creates = append(creates, d)
		case p.ran() || slices.Contains(p.rec.StartedDisks, d.Name):
			// An empty disk in its place would boot a guest without its data.
			ok = false
			p.problem(ReasonDiskLost, fmt.Sprintf("disk %s was there when the machine last ran and its file %s is gone", d.Name, f.Path),
				"bring the file back, or give the disk another name for a new, empty one")
		default:
			creates = append(creates, d)
		}
	}
	return creates, ok
}

// missing says what a disk lacks.
func missing(d *manifest.Disk, f driver.DiskFile) string {
	if d.NBD != nil {
		return "server at " + cmp.Or(f.Path, d.NBD.URI())
	}
	return "file " + d.File
}

// nvramLost tells, as a problem, that what the firmware remembers was there at the last
// start and is gone: an empty one in its place would not know what to boot.
func (p *planner) nvramLost() bool {
	kind := driver.FirmwareKindOf(p.spec)
	f, looked := p.obs.Files[kind.NVRAMNode()]
	if kind == "" || !looked || f.Exists || !slices.Contains(p.rec.StartedDisks, kind.NVRAMNode()) {
		return false
	}
	p.problem(ReasonDiskLost, fmt.Sprintf("the firmware's NVRAM was there when the machine last ran and its file %s is gone", f.Path),
		"bring the file back; or start the machine once without spec.firmware, after which it gets a new one that knows no boot entries")
	return true
}

// ran tells that just this spec was started before, so that all of its disks
// have been made.
func (p *planner) ran() bool { return p.rec.StartedGeneration == p.rec.Generation }

// identityLacks says what the identity has to be written for; empty when it is whole.
func (p *planner) identityLacks() string {
	id := p.obs.Identity
	switch {
	case id == nil:
		return "a new machine"
	case p.ran():
		// What this spec needs was written before its first start. Some devices
		// need no place at all, which only the emulator knows.
		return ""
	}
	if id.Machine.Wanted != machineType(p.spec.Machine) {
		return "another machine type"
	}
	if e := p.spec.Emulator; e != nil && e.Binary != "" && filepath.Base(e.Binary) != id.Machine.Binary {
		return "another emulator"
	}
	for _, n := range p.spec.NICs {
		if _, ok := id.MACs[n.Name]; !ok && n.MAC == "" {
			return "an address for nic " + n.Name
		}
	}
	if kind := driver.FirmwareKindOf(p.spec); kind != "" {
		if _, ok := id.Firmware[kind]; !ok {
			return "firmware"
		}
	}
	for _, name := range deviceNames(p.spec) {
		if _, ok := id.Slots[name]; !ok {
			return "a place for " + name
		}
	}
	return ""
}

// deviceNames are the names of everything that may sit in a slot.
func deviceNames(spec *manifest.VirtualMachineSpec) []string {
	var names []string
	for _, d := range spec.Disks {
		names = append(names, d.Name)
	}
	for _, n := range spec.NICs {
		names = append(names, n.Name)
	}
	for _, f := range spec.Filesystems {
		names = append(names, f.Name)
	}
	for _, d := range spec.Devices {
		names = append(names, d.Name)
	}
	if spec.CloudInit != nil {
		names = append(names, driver.SeedDevice)
	}
	if w := spec.Watchdog; w != nil && w.Model == manifest.WatchdogI6300ESB {
		names = append(names, driver.WatchdogDevice)
	}
	if spec.GuestAgent != nil {
		names = append(names, driver.AgentController)
	}
	return names
}

// unwanted tells that an end was neither asked for nor the guest's own doing.
func unwanted(c driver.EndCause) bool {
	switch c {
	case driver.EndCrash, driver.EndSignal, driver.EndHostReboot, driver.EndPanic, driver.EndWatchdog, driver.EndQuit:
		return true
	case driver.EndStopped, driver.EndGuest, driver.EndStartFailed:
		return false
	default:
		return false
	}
}

// causeWords say why a process ended.
func causeWords(c driver.EndCause) string {
	switch c {
	case driver.EndStopped:
		return "stopped as asked"
	case driver.EndGuest:
		return "the guest powered itself off"
	case driver.EndSignal:
		return "QEMU was ended by a signal"
	case driver.EndCrash:
		return "QEMU crashed or was killed"
	case driver.EndHostReboot:
		return "the host was restarted"
	case driver.EndStartFailed:
		return "QEMU did not start"
	case driver.EndPanic:
		return "the guest panicked"
	case driver.EndWatchdog:
		return "the guest's watchdog ended it"
	case driver.EndQuit:
		return "somebody told QEMU to quit"
	default:
		return string(c)
	}
}

func endWords(e *driver.Ended) string {
	if e.Cause == driver.EndStopped {
		return causeWords(e.Cause)
	}
	return causeWords(e.Cause) + lastWords(e.LastLine)
}

func (p *planner) startWords(t *state.Termination) string {
	switch {
	case t == nil && p.rec.Starts == 0:
		return "it is not running"
	case t == nil:
		return "it is gone without a trace, as after a restart of the host"
	}
	return "it is not running: " + causeWords(t.Cause)
}

// later is now plus d.
func (p *planner) later(d time.Duration) time.Time { return p.now.Add(d) }
