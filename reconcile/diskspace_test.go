package reconcile

import (
	"strings"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// onFilesystem is a running machine with a disk of 1 GiB, of which that much is
// allocated, on a filesystem with that much free.
func onFilesystem(allocated, free, total int64) *scene {
	return newScene().up().with(func(s *scene) {
		s.obs.Files["root"] = driver.DiskFile{
			Path: "/srv/disks/web/root.qcow2", Exists: true, Size: 1 << 30, Allocated: allocated, Free: free, Total: total, Filesystem: 1,
		}
	})
}

func TestLowSpace_warnsOnlyOfWhatMayHappen(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	second := func(s *scene) {
		s.want.Machine.Object.Spec.Disks = append(s.want.Machine.Object.Spec.Disks, manifest.Disk{Name: "data", Size: 1 << 30})
		f := s.obs.Files["root"]
		f.Path = "/srv/disks/web/data.qcow2"
		s.obs.Files["data"] = f
	}
	for name, c := range map[string]struct {
		scene  *scene
		warned bool
		want   string
	}{
		"much room":                      {onFilesystem(0, 5*gib, 10*gib), false, ""},
		"less than a tenth":              {onFilesystem(0, 900*mib, 10*gib), false, "900 MiB free of 10 GiB below /srv/disks/web, where disk root may still grow by 1 GiB"},
		"it cannot grow that much":       {onFilesystem(500*mib, 900*mib, 10*gib), false, ""},
		"it has all its space":           {onFilesystem(gib, 0, 10*gib), false, ""},
		"two of them can":                {onFilesystem(500*mib, 900*mib, 10*gib).with(second), false, "disk root, data may still grow by 1 GiB"},
		"a tenth of it is a lot":         {onFilesystem(0, 900*mib, 100*gib), false, "900 MiB free"},
		"a large filesystem":             {onFilesystem(0, 11*gib, 1000*gib), false, ""},
		"just above, and never said":     {onFilesystem(0, 1023*mib, 10*gib-10*mib), false, ""},
		"just above, and said before":    {onFilesystem(0, 1023*mib, 10*gib-10*mib), true, "1023 MiB free"},
		"it has a snapshot":              {onFilesystem(gib, 900*mib, 10*gib).with(func(s *scene) { s.obs.Snapshots["a"] = driver.SnapshotState{Disks: []string{"root"}} }), false, "may still grow by 1 GiB"},
		"the guest cannot write":         {onFilesystem(0, 0, gib).with(func(s *scene) { s.want.Machine.Object.Spec.Disks[0].ReadOnly = true }), false, ""},
		"its filesystem is unknown":      {onFilesystem(0, 0, 0), false, ""},
		"stopped, and not looked into":   {onFilesystem(0, 0, gib).down(driver.EndStopped).with(func(s *scene) { s.obs.Files["root"] = driver.DiskFile{Exists: true, Total: gib} }), false, ""},
		"stopped, and known to be small": {onFilesystem(0, 1, gib).down(driver.EndStopped), false, "1 B free of 1 GiB"},
	} {
		t.Run(name, func(t *testing.T) {
			got := lowSpace(&c.scene.want.Machine.Object.Spec, &c.scene.obs, c.warned)
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// full is a machine that QEMU stopped, with that much free on its filesystem now.
func full(free int64) *scene {
	return onFilesystem(1<<20, free, 1<<30).with(func(s *scene) {
		s.obs.Guest.RunState = runIOError
		s.obs.Guest.Disks[0].IOStatus, s.obs.Guest.Disks[0].File = ioNoSpace, "/srv/disks/web/root.qcow2"
	})
}

func TestPlanMachine_ioError_runsOnOnlyByAPersonsWord(t *testing.T) {
	resume := func(s *scene) { s.opt.Resume = true }
	runPlanCases(t, []planCase{
		{"nobody said anything", full(1 << 29), "!IOError", PhasePaused},
		{"restarts are allowed", full(1 << 29).with(func(s *scene) { s.opt.AllowRestart = true }), "!IOError", PhasePaused},
		{"supervised", full(1 << 29).with(func(s *scene) { s.opt.Supervise = true }), "!IOError", PhasePaused},
		{"resumed", full(1 << 29).with(resume), "resume;", PhasePaused},
		{"resumed without room", full(0).with(resume), "!IOError", PhasePaused},
		{"resumed, but to be paused", full(1 << 29).with(resume).edit(power(manifest.PowerPaused)), "!IOError", PhasePaused},
		{"stopped", full(0).edit(power(manifest.PowerStopped)), "quit(Stop,10s);", PhasePaused},
	})
	p := full(3 << 20).plan().Problems[0]
	if want := "QEMU stopped the guest: there was no space for disk root (/srv/disks/web/root.qcow2), 3 MiB of 1 GiB are free there"; p.Message != want || !strings.Contains(p.Hint, "make room, then run maqet resume web") {
		t.Errorf("problem %s", p)
	}
	broken := full(3 << 20)
	broken.obs.Guest.Disks[0].IOStatus = ioFailed
	if p := broken.plan().Problems[0]; !strings.Contains(p.Message, "disk root (/srv/disks/web/root.qcow2) has failed") || !strings.Contains(p.Hint, "repair the storage") {
		t.Errorf("problem %s", p)
	}
	if after := (Options{Resume: true}).after(full(1 << 29).with(resume).plan()); after.Resume {
		t.Error("one word resumes more than once")
	}
}

func TestConditions_disks_nameTheDiskAndTheSpace(t *testing.T) {
	s := full(3 << 20)
	status := StatusOf(s.want, s.obs, s.plan(), t0)
	for kind, want := range map[string]string{
		ConditionIOError: "no space for disk root", ConditionDiskSpaceLow: "3 MiB free of 1 GiB", ConditionStalled: "maqet resume web",
	} {
		if c := conditionOf(status.Conditions, kind); c.Status != "True" || !strings.Contains(c.Message, want) {
			t.Errorf("%s is %+v, want it to say %q", kind, c, want)
		}
	}
}

func TestSetPower_resumeAfterIOError_isConfirmedOrSaysWhyNot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		stop := func(m *simMachine) {
			m.obs.Guest.RunState = runIOError
			m.obs.Guest.Disks[0].IOStatus = ioNoSpace
		}
		w.host.touch("web", stop)
		report := w.apply(ApplyOptions{}, newVM("web"))
		if !report.Failed || w.host.obs("web").Guest.RunState != runIOError {
			w.Errorf("an apply went on: %+v", report.Results[0].Plan)
		}
		result, err := w.engine.SetPower(w.Context(), "web", PowerRequest{PowerState: manifest.PowerRunning}, Options{Resume: true})
		if err != nil || result.Status.Phase != PhaseRunning {
			w.Errorf("phase %s, error %v", result.Status.Phase, err)
		}
	})
}

func TestStepResume_failedAgainAtOnce_isNotConfirmed(t *testing.T) {
	message, ok := Step{Kind: StepResume}.seen(full(3 << 20).obs)
	if ok || !strings.Contains(message, "failed again at once") || !strings.Contains(message, "disk root") {
		t.Errorf("seen %v: %s", ok, message)
	}
}
