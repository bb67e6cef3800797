package reconcile

import (
	"maps"
	"slices"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// model is a machine on a host that exists only in memory: steps change it as
// they would change a host where all goes well. Forecasts run on it, and the
// tests add faults to it.
type model struct {
	want Desired
	obs  driver.Observed
	now  time.Time
	// bootID is that of the host.
	bootID string
	// opt has the durations.
	opt Options
}

// newModel copies what it is given, so that a forecast changes nothing.
func newModel(want Desired, obs driver.Observed, now time.Time, bootID string) *model {
	m := &model{want: copyDesired(want), obs: obs, now: now, bootID: bootID}
	m.obs.Files = maps.Clone(obs.Files)
	if m.obs.Files == nil {
		m.obs.Files = map[string]driver.DiskFile{}
	}
	m.obs.Snapshots = maps.Clone(obs.Snapshots)
	if m.obs.Snapshots == nil {
		m.obs.Snapshots = map[string]driver.SnapshotState{}
	}
	m.obs.Images = maps.Clone(obs.Images)
	if obs.Guest != nil {
		g := *obs.Guest
		g.Jobs, g.Disks = slices.Clone(g.Jobs), slices.Clone(g.Disks)
		m.obs.Guest = &g
	}
	return m
}

// do executes one step on the host and in the record.
func (m *model) do(s Step) {
	m.doHost(s)
	m.doRecord(s)
}

// doHost is what a step does to the host.
func (m *model) doHost(s Step) {
	if s.Intent != nil && s.Kind != StepFinishSnapshot && s.Kind != StepFinishLoad {
		in := *s.Intent
		m.obs.Intent = &in
	}
	switch s.Kind {
	case StepRecordEnd:
		m.obs.Ended, m.obs.Launched, m.obs.Intent = nil, nil, nil
	case StepIdentity:
		m.identify()
	case StepCreateDisk, StepSetAside, StepGrowDisk, StepThrottleDisk:
		m.workOnDisk(s)
	case StepPlug, StepUnplug, StepDrop, StepMedium, StepAddCPUs, StepForward:
		m.plugStep(s)
	case StepStart:
		m.start(s.Paused)
		m.startFrom(s)
	case StepThaw, StepPause, StepResume:
		m.turnGuest(s)
	case StepClearIntent:
		m.obs.Intent = nil
	case StepTakeSnapshot:
		m.takeSnapshot(s)
	case StepFinishSnapshot:
		m.finishSnapshot(s)
	case StepLoadSnapshot:
		m.load(s)
	case StepFinishLoad, StepFailRestore:
		m.loaded(s)
	case StepDeleteSnapshot:
		delete(m.obs.Snapshots, s.Snapshot)
	case StepForget:
		m.obs = driver.Observed{
			Name: m.obs.Name, Presence: driver.Absent, SnapshotsKnown: true,
			Files: map[string]driver.DiskFile{}, Snapshots: map[string]driver.SnapshotState{},
		}
	case StepAgentShutdown, StepPowerdown, StepQuit, StepKill, StepForgetSnapshot, StepEndHold, StepRevertDisks, StepEndRestore, StepScheduleSnapshot, StepExpireSnapshot:
		// The intent is all that is seen of the first three until time passes;
		// the others concern the record alone.
	}
}

// turnGuest changes how a running guest is.
func (m *model) turnGuest(s Step) {
	if s.Kind == StepThaw {
		m.obs.Freeze = nil
		return
	}
	if s.Kind == StepPause {
		m.obs.Guest.RunState = runPaused
		return
	}
	m.obs.Guest.RunState = runRunning
	m.obs.Ready = m.obs.Ready || m.want.Machine.Object.Spec.Readiness == nil
}

// doRecord is what a step does to the record.
func (m *model) doRecord(s Step) {
	rec := m.want.Machine
	switch s.Kind {
	case StepIdentity:
		rec.UID = m.obs.Identity.UID
	case StepStart:
		started(rec, m.obs.Launched.UID)
		if s.Snapshot != "" && rec.Restore != nil {
			m.restoreLaunched()
		}
	case StepScheduleSnapshot, StepExpireSnapshot:
		m.schedule(s)
	case StepFinishLoad, StepRevertDisks, StepEndRestore:
		rec.Restore = nil
	case StepFailRestore:
		if rec.Restore != nil {
			failed := *rec.Restore
			failed.Failed = s.Why
			rec.Restore = &failed
		}
	case StepTakeSnapshot, StepFinishSnapshot:
		if snap := m.want.snapshot(s.Snapshot); snap != nil && (s.Kind == StepFinishSnapshot || s.Intent == nil) {
			taken(snap, machineUID(rec, &m.obs), m.now)
		}
	case StepForgetSnapshot:
		m.want.Snapshots = slices.DeleteFunc(slices.Clone(m.want.Snapshots), func(x *snapshotRecord) bool {
			return x.Object.Metadata.Name == s.Snapshot
		})
	case StepForget:
		m.want = Desired{}
	case StepEndHold:
		rec.Hold = nil
	case StepCreateDisk:
		rec.Recreate = maps.Clone(rec.Recreate)
		delete(rec.Recreate, s.Disk)
	case StepPlug:
		plugged(rec, *s.Part)
	case StepUnplug, StepDrop, StepMedium, StepAddCPUs, StepForward:
	case StepRecordEnd, StepSetAside, StepGrowDisk, StepThrottleDisk, StepAgentShutdown, StepPowerdown, StepQuit, StepKill, StepThaw, StepPause, StepResume, StepClearIntent, StepDeleteSnapshot, StepLoadSnapshot:
	}
}

// pass executes all steps of a plan. An end is noted before it is cleared.
func (m *model) pass(p Plan) {
	for _, s := range p.Steps {
		if s.Kind == StepRecordEnd {
			ended(m.want.Machine, terminationOf(m.want.Machine, &m.obs), m.opt)
		}
		m.do(s)
	}
}

// elapse lets what a plan waits for happen; false when that cannot be foreseen,
// since QEMU does not say what it is doing.
func (m *model) elapse(w Wait) bool {
	switch {
	case len(w.Images) > 0:
		m.pull(w.Images)
	case m.obs.Guest == nil && (w.Job || w.Ready || w.Unplug):
		return false
	case w.Unplug:
		m.letGo()
	case !w.Job && !w.Ready && !w.Exit:
		m.now = w.Until
	case w.Job:
		if in := m.obs.Intent; in != nil && in.Snapshot != nil {
			for i := range m.obs.Guest.Jobs {
				m.obs.Guest.Jobs[i].Status = "concluded"
			}
		}
	case w.Ready:
		m.obs.Ready = true
	case m.obs.Guest != nil && m.obs.Guest.RunState == runPrelaunch && m.obs.Intent == nil:
		m.obs.Guest.RunState = runRunning
	case w.Exit:
		cause := driver.EndGuest
		if m.obs.Intent != nil {
			cause = driver.EndStopped
		}
		m.end(cause)
	}
	return true
}

// end ends the process.
func (m *model) end(cause driver.EndCause) {
	m.obs.Presence, m.obs.Reason = driver.Absent, ""
	m.obs.Ended = &driver.Ended{Cause: cause, At: m.now, Boot: m.bootID, Exit: driver.ExitNotSeen, UID: machineUID(m.want.Machine, &m.obs)}
	m.obs.Guest, m.obs.PID, m.obs.StartedAt, m.obs.Ready, m.obs.Freeze = nil, 0, time.Time{}, false, nil
}

// modelMAC is every address that is made up in a model.
const modelMAC = "52:54:00:00:00:01"

// identify writes or extends the identity.
func (m *model) identify() {
	spec := &m.want.Machine.Object.Spec
	id := driver.Identity{Version: driver.IdentityVersion, UID: "forecast-" + m.want.Machine.Object.Metadata.Name, Created: m.now}
	if m.obs.Identity != nil {
		id = *m.obs.Identity
	}
	id.MACs, id.Slots = maps.Clone(id.MACs), maps.Clone(id.Slots)
	if id.MACs == nil {
		id.MACs = map[string]string{}
	}
	if id.Slots == nil {
		id.Slots = map[string]driver.Slot{}
	}
	id.Machine.Wanted = machineType(spec.Machine)
	id.Machine.Type = modelMachine(id.Machine.Wanted)
	if spec.Emulator != nil {
		id.Machine.Binary = baseName(spec.Emulator.Binary)
	}
	for _, n := range spec.NICs {
		if n.MAC == "" && id.MACs[n.Name] == "" {
			id.MACs[n.Name] = modelMAC
		}
	}
	if kind := driver.FirmwareKindOf(spec); kind != "" {
		id.Firmware = map[driver.FirmwareKind]driver.Firmware{kind: {}}
	}
	for _, name := range deviceNames(spec) {
		if _, ok := id.Slots[name]; !ok {
			id.Slots[name] = driver.Slot{Kind: driver.SlotPort, Index: len(id.Slots)}
		}
	}
	m.obs.Identity = &id
}

// workOnDisk is what the steps do that concern one disk.
func (m *model) workOnDisk(s Step) {
	if s.Kind == StepCreateDisk {
		m.createDisk(s.Disk)
	}
	if s.Kind == StepSetAside {
		delete(m.obs.Files, s.Disk)
	}
	if s.Kind == StepGrowDisk {
		m.growDisk(s.Disk, s.Size)
	}
	if s.Kind == StepThrottleDisk {
		m.throttleDisk(s.Disk, s.Throttle)
	}
}

func (m *model) createDisk(name string) {
	for _, d := range m.want.Machine.Object.Spec.Disks {
		if d.Name != name {
			continue
		}
		f := driver.DiskFile{Path: name + ".qcow2", Exists: true, Size: d.Size.Bytes(), Format: string(manifest.FormatQcow2)}
		if image := m.obs.Images[d.Image]; d.Image != "" {
			f.Image, f.Size = image.Digest, max(f.Size, image.Size)
		}
		m.obs.Files[name] = f
	}
}

// pull makes images present, and whole again what reads from them.
func (m *model) pull(names []string) {
	for _, name := range names {
		state := m.obs.Images[name]
		state.Present, state.Pull, state.Failed = true, nil, ""
		if state.Digest == "" {
			state.Digest = "sha256:forecast-" + name
		}
		m.obs.Images[name] = state
	}
	for name, f := range m.obs.Files {
		f.Lost = false
		m.obs.Files[name] = f
	}
}

func (m *model) takeSnapshot(s Step) {
	if s.Intent == nil {
		m.addSnapshot(s.Snapshot, 0)
		return
	}
	m.obs.Guest.Jobs = append(m.obs.Guest.Jobs, driver.Job{ID: s.Intent.Snapshot.Job, Type: "snapshot-save", Status: "running"})
}

// finishSnapshot takes a job that has saved memory off QEMU's list.
func (m *model) finishSnapshot(s Step) {
	if s.Intent == nil {
		return
	}
	m.obs.Guest.Jobs = slices.DeleteFunc(m.obs.Guest.Jobs, func(j driver.Job) bool { return j.ID == s.Intent.Snapshot.Job })
	m.obs.Intent = nil
	m.addSnapshot(s.Snapshot, 1)
}

func (m *model) addSnapshot(tag string, vmState int64) {
	s := driver.SnapshotState{Tag: tag, VMStateSize: vmState, Date: m.now}
	if vmState > 0 && m.obs.Guest != nil {
		g := *m.obs.Guest
		s.Record = &driver.SnapshotRecord{Tag: tag, UID: g.UID, Method: manifest.SnapshotFull, Taken: m.now, Launched: m.obs.Launched, Guest: &g}
	}
	m.obs.Snapshots[tag] = s
}
