package reconcile

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

func size(n manifest.Quantity) func(*manifest.VirtualMachineSpec) {
	return func(s *manifest.VirtualMachineSpec) { s.Disks[0].Size = n }
}

func onNVMe(s *manifest.VirtualMachineSpec) {
	s.Disks[0].Bus, s.Disks[0].Serial = manifest.BusNVMe, "1"
}

// throttled limits the disk to 100 operations, and to that many bytes, a second.
func throttled(bps manifest.Quantity) func(*manifest.VirtualMachineSpec) {
	return func(s *manifest.VirtualMachineSpec) { s.Disks[0].Throttle = &manifest.Throttle{IOPS: 100, BPS: bps} }
}

func TestPlanMachine_sizeGrown_isGrownLiveOrInItsAbsence(t *testing.T) {
	stopped := power(manifest.PowerStopped)
	lost := func(s *scene) {
		f := s.obs.Files["root"]
		f.Backing, f.Lost = "/images/old", true
		s.obs.Files["root"] = f
	}
	allowed := func(s *scene) { s.opt.AllowRestart = true }
	runPlanCases(t, []planCase{
		{"running", newScene().up().edit(size(2 << 30)), "grow-disk root;", PhaseRunning},
		{"running, restarts allowed", newScene().up().edit(size(2 << 30)).with(allowed), "grow-disk root;", PhaseRunning},
		{"paused", newScene().up().edit(size(2 << 30)).with(func(s *scene) { s.obs.Guest.RunState = runPaused }), "grow-disk root; resume;", PhasePaused},
		{"its disk is full", newScene().up().edit(size(2 << 30)).with(func(s *scene) { s.obs.Guest.RunState = runIOError }), "grow-disk root; !IOError", PhasePaused},
		{"stopped and to stay so", newScene(stopped).up().down(driver.EndStopped).recorded().edit(size(2 << 30)), "grow-disk root;", PhaseStopped},
		{"stopped, and its image is gone", newScene(stopped).up().down(driver.EndStopped).recorded().edit(size(2 << 30)).with(lost), "", PhaseStopped},
		{"running, and its image is gone", newScene().up().edit(size(2 << 30)).with(lost), "grow-disk root;", PhaseRunning},
		{"stopped and to be started", newScene().up().down(driver.EndStopped).recorded().edit(size(2 << 30)), "start;", PhasePending},
		{"being stopped", newScene().up().edit(size(2 << 30)).edit(stopped), "powerdown(Stop,1m0s);", PhaseRunning},
		{"as it is", newScene().up().edit(size(1 << 30)), "", PhaseRunning},
		{"its size is unknown", newScene().up().edit(size(2 << 30)).with(func(s *scene) {
			s.obs.Guest.Disks[0].Size, s.obs.Files = 0, nil
		}), "", PhaseRunning},
		{"nvme, running", newScene(onNVMe).up().edit(size(2 << 30)), "", PhaseRunning},
		{"nvme, restarts allowed", newScene(onNVMe).up().edit(size(2 << 30)).with(allowed), "powerdown(Restart,1m0s);", PhaseRunning},
		{"nvme, stopped and to be started", newScene(onNVMe).up().down(driver.EndStopped).recorded().edit(size(2 << 30)), "grow-disk root; start;", PhasePending},
	})
}

func TestPlanMachine_sizeShrunk_isRefusedAndNothingIsDone(t *testing.T) {
	for name, s := range map[string]*scene{
		"running": newScene().up().edit(size(1 << 20)),
		"stopped": newScene(power(manifest.PowerStopped)).up().down(driver.EndStopped).recorded().edit(size(1 << 20)),
	} {
		t.Run(name, func(t *testing.T) {
			s.opt.AllowRestart = true
			p := s.plan()
			if len(p.Steps) != 0 || len(p.Changes) != 1 || p.Changes[0].Class != ClassDataLoss || !p.Changes[0].Pending {
				t.Errorf("want one pending change of data loss and no step: %+v", p)
			}
			if len(p.Problems) != 1 || p.Problems[0].Reason != ReasonDiskSize || p.Problems[0].Owed() ||
				!strings.Contains(p.Problems[0].String(), "back to 1Gi") || !strings.Contains(p.Problems[0].Message, "lost") {
				t.Errorf("want one problem that says why and what to do: %+v", p.Problems)
			}
			for _, c := range StatusOf(s.want, s.obs, p, t0).Conditions {
				if c.Type == ConditionRestartRequired {
					t.Errorf("a restart does not help, yet it is required: %+v", c)
				}
			}
		})
	}
}

func TestPlanMachine_throttle_isSetLive(t *testing.T) {
	change := func(path, from, to string, drift bool) Change {
		return Change{Path: "spec.disks[root].throttle." + path, From: from, To: to, Class: ClassLive, Why: "by block_set_io_throttle", Drift: drift}
	}
	touched := func(iops, bps int64) func(*scene) {
		return func(s *scene) { s.obs.Guest.Disks[0].IOPS, s.obs.Guest.Disks[0].BPS = iops, bps }
	}
	for _, c := range []struct {
		name  string
		scene *scene
		want  []Change
	}{
		{"as it is", newScene(throttled(50 << 20)).up(), nil},
		{"added", newScene().up().edit(throttled(50 << 20)), []Change{change("iops", "", "100", false), change("bps", "", "50Mi", false)}},
		{"changed", newScene(throttled(50 << 20)).up().edit(throttled(1 << 20)), []Change{change("bps", "50Mi", "1Mi", false)}},
		{"removed", newScene(throttled(50 << 20)).up().edit(func(s *manifest.VirtualMachineSpec) { s.Disks[0].Throttle = nil }), []Change{
			change("iops", "100", "", false), change("bps", "50Mi", "", false),
		}},
		{"taken away by somebody", newScene(throttled(0)).up().with(touched(0, 0)), []Change{change("iops", "", "100", true)}},
		{"given by somebody", newScene().up().with(touched(0, 1000)), []Change{change("bps", "1000", "", true)}},
		{"drive without a medium", newScene().up().edit(throttled(0)).with(func(s *scene) { s.obs.Guest.Disks[0].Empty = true }), nil},
		{"only little was asked", newScene().up().edit(throttled(0)).with(func(s *scene) { s.obs.Guest.Brief = true }), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := c.scene.plan()
			if diff := cmp.Diff(c.want, p.Changes); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			if (len(p.Steps) == 1) != (len(c.want) > 0) || len(p.Steps) > 0 && p.Steps[0].Kind != StepThrottleDisk {
				t.Fatalf("steps %+v", p.Steps)
			}
			c.scene.pass(p)
			if after := c.scene.plan(); !after.Empty() {
				t.Errorf("after it there is to do: %+v", after)
			}
		})
	}
}

func TestConverge_diskChanges_areDoneAndConfirmed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		w.apply(ApplyOptions{}, newVM("web", size(2<<30), throttled(0)))
		if got := w.host.called(); !cmp.Equal(got[len(got)-2:], []string{"web grow root", "web throttle root"}) {
			w.Errorf("calls %v", got)
		}
		if d := w.host.obs("web").Guest.Disks[0]; d.Size != 2<<30 || d.IOPS != 100 {
			w.Errorf("the disk is %+v", d)
		}
		w.host.fail["web grow root"] = errors.New("no room")
		report := w.apply(ApplyOptions{}, newVM("web", size(3<<30), throttled(0)))
		if err := report.Results[0].Err; err == nil || !strings.Contains(err.Error(), "no room") || !report.Failed {
			w.Errorf("error %v", err)
		}
	})
}

func TestConverge_nvmeGrown_isGrownBetweenTwoProcesses(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("db", onNVMe))
		w.apply(ApplyOptions{Options: Options{AllowRestart: true}}, newVM("db", onNVMe, size(2<<30)))
		if calls := strings.Join(w.host.called(), "; "); !strings.HasSuffix(calls, "db powerdown; db grow root; db start") {
			w.Errorf("calls %s", calls)
		}
		if d := w.host.obs("db").Guest.Disks[0]; d.Size != 2<<30 {
			w.Errorf("the disk is %+v", d)
		}
	})
}
