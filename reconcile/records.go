package reconcile

import (
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// started notes a start.
func started(m *state.Machine, uid string) {
	m.Starts++
	if m.Starts > 1 {
		m.Restarts++
	}
	m.StartedGeneration, m.Unmet = m.Generation, nil
	m.StartedDisks = nil
	for _, d := range m.Object.Spec.Disks {
		m.StartedDisks = append(m.StartedDisks, d.Name)
	}
	if kind := driver.FirmwareKindOf(&m.Object.Spec); kind != "" {
		m.StartedDisks = append(m.StartedDisks, kind.NVRAMNode())
	}
	// What was to be made anew was made before.
	m.Recreate = nil
	if uid != "" {
		m.UID = uid
	}
	if t := m.LastTermination; t != nil {
		old := *t
		old.Superseded = true
		m.LastTermination = &old
	}
}

// adopt notes what is observed and was not written down, since whoever did it
// was cut off or the record is newer than the machine: its uuid, and a start.
func adopt(m *state.Machine, obs *driver.Observed) {
	if m.UID == "" && obs.Identity != nil {
		m.UID = obs.Identity.UID
	}
	unrecorded := obs.Presence == driver.Alive && obs.Launched != nil &&
		obs.Launched.Generation == m.Generation && m.StartedGeneration != m.Generation
	if unrecorded {
		started(m, obs.Launched.UID)
	}
}

// taken notes that a snapshot is there.
func taken(s *state.Snapshot, uid string, at time.Time) {
	s.TakenUID, s.TakenAt, s.Failed = uid, at, ""
}

// copyDesired copies what may be changed while a machine is converged.
func copyDesired(want Desired) Desired {
	out := Desired{}
	if want.Machine != nil {
		m := *want.Machine
		m.Object = *m.Object.DeepCopy()
		out.Machine = &m
	}
	for _, s := range want.Snapshots {
		c := *s
		out.Snapshots = append(out.Snapshots, &c)
	}
	out.Images = want.Images // They are only read.
	return out
}

// snapshot is the desired snapshot of that tag; nil when there is none.
func (d Desired) snapshot(tag string) *state.Snapshot {
	for _, s := range d.Snapshots {
		if s.Object.Metadata.Name == tag {
			return s
		}
	}
	return nil
}

// vm is the desired object; nil when there is none.
func (d Desired) vm() *manifest.VirtualMachine {
	if d.Machine == nil {
		return nil
	}
	return &d.Machine.Object
}

// request is what a snapshot step asks of the host.
func (s Step) request() driver.SnapshotIntent {
	if s.Intent != nil && s.Intent.Snapshot != nil {
		return *s.Intent.Snapshot
	}
	return driver.SnapshotIntent{Tag: s.Snapshot, Method: s.Method, Quiesce: s.Quiesce}
}

// stops tells whether a step ends the process, now or soon.
func (k StepKind) stops() bool {
	return k == StepAgentShutdown || k == StepPowerdown || k == StepQuit || k == StepKill
}
