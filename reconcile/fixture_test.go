package reconcile

import (
	"fmt"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// Fixed points of the tests' world.
var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const testUID = "11111111-2222-3333-4444-555555555555"

// newVM is a resolved machine with a disk, a nic and whatever edit adds.
func newVM(name string, edit ...func(*manifest.VirtualMachineSpec)) *manifest.VirtualMachine {
	vm := &manifest.VirtualMachine{
		APIVersion: manifest.APIVersion, Kind: manifest.KindVirtualMachine, Metadata: manifest.Metadata{Name: name},
		Spec: manifest.VirtualMachineSpec{
			Machine: &manifest.Machine{Type: "q35"},
			Memory:  &manifest.Memory{Size: 512 << 20},
			Disks:   []manifest.Disk{{Name: "root", Size: 1 << 30}},
			NICs:    []manifest.NIC{{Name: "lan", User: &manifest.UserNet{Forward: []string{"tcp:127.0.0.1:2222:22", "tcp:127.0.0.1:8080:80"}}}},
		},
	}
	for _, f := range edit {
		f(&vm.Spec)
	}
	return manifest.Resolve(vm, "/srv")
}

func power(p manifest.PowerState) func(*manifest.VirtualMachineSpec) {
	return func(s *manifest.VirtualMachineSpec) { s.PowerState = p }
}

func newSnap(name, vm string, method manifest.SnapshotMethod) *state.Snapshot {
	object := manifest.ResolveSnapshot(&manifest.Snapshot{
		APIVersion: manifest.APIVersion, Kind: manifest.KindSnapshot, Metadata: manifest.Metadata{Name: name},
		Spec: manifest.SnapshotSpec{VirtualMachine: vm, Method: method},
	})
	return &state.Snapshot{Object: *object, Owner: "o", Generation: 1, Created: t0}
}

// scene is one machine: what should be, what is.
type scene struct {
	*model
	opt Options
}

// newScene is a machine that was applied and never started.
func newScene(edit ...func(*manifest.VirtualMachineSpec)) *scene {
	vm := newVM("web", edit...)
	want := Desired{Machine: &state.Machine{Object: *vm, Owner: "o", Generation: 1, Created: t0}}
	obs := driver.Observed{Name: "web", At: t0, Presence: driver.Absent, SnapshotsKnown: true}
	return &scene{model: newModel(want, obs, t0, "boot-1"), opt: Options{Who: "test", BootID: "boot-1"}}
}

// up starts the scene's machine, without a plan.
func (s *scene) up() *scene {
	s.doHost(Step{Kind: StepIdentity})
	s.obs.Identity.UID = testUID
	s.want.Machine.UID = testUID
	for _, d := range s.want.Machine.Object.Spec.Disks {
		if d.Size != 0 || d.Image != "" {
			s.createDisk(d.Name)
		} else {
			s.obs.Files[d.Name] = driver.DiskFile{Path: d.File, Exists: true}
		}
	}
	s.do(Step{Kind: StepStart, Paused: s.want.Machine.Object.Spec.PowerState == manifest.PowerPaused})
	return s
}

// down ends its process.
func (s *scene) down(cause driver.EndCause) *scene {
	s.end(cause)
	return s
}

// recorded takes the end into the record.
func (s *scene) recorded() *scene {
	ended(s.want.Machine, terminationOf(s.want.Machine, &s.obs), s.opt)
	s.do(Step{Kind: StepRecordEnd})
	return s
}

// edit changes the spec, as a changed manifest does.
func (s *scene) edit(f func(*manifest.VirtualMachineSpec)) *scene {
	vm := s.want.Machine.Object.DeepCopy()
	f(&vm.Spec)
	s.want.Machine.Object = *manifest.Resolve(vm, "/srv")
	s.want.Machine.Generation++
	return s
}

func (s *scene) with(f func(*scene)) *scene {
	f(s)
	return s
}

func (s *scene) intent(kind driver.IntentKind, stage driver.Stage, deadline time.Duration) *scene {
	s.obs.Intent = &driver.Intent{Kind: kind, Stage: stage, Since: t0, Deadline: t0.Add(deadline), Who: "before", UID: testUID}
	return s
}

func (s *scene) plan() Plan { return PlanMachine(s.want, s.obs, s.opt, s.now) }

// summary is a plan in one line, for tables.
func summary(p Plan) string {
	text := ""
	add := func(format string, args ...any) {
		if text != "" {
			text += " "
		}
		text += fmt.Sprintf(format, args...)
	}
	for _, s := range p.Steps {
		word := s.String()
		switch {
		case s.Paused:
			word += "(paused)"
		case s.DeleteDisks:
			word += "(disks)"
		case s.Intent != nil && s.Intent.Stage != "":
			word += fmt.Sprintf("(%s,%s)", s.Intent.Kind, s.Intent.Deadline.Sub(s.Intent.Since))
		}
		add("%s;", word)
	}
	if p.Wait != nil && len(p.Steps) == 0 {
		add("wait")
		for _, w := range []struct {
			on   bool
			word string
		}{{p.Wait.Exit, "exit"}, {p.Wait.Job, "job"}, {p.Wait.Ready, "ready"}, {p.Wait.Unplug, "unplug"}, {len(p.Wait.Images) > 0, "images"}} {
			if w.on {
				text += "," + w.word
			}
		}
		if !p.Wait.Until.IsZero() {
			text += "," + p.Wait.Until.Sub(t0).String()
		}
	}
	for _, problem := range p.Problems {
		add("!%s", problem.Reason)
	}
	if p.Held != nil {
		add("held")
	}
	return text
}
