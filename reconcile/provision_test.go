package reconcile

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

func cloudInit(s *manifest.VirtualMachineSpec) {
	s.CloudInit = &manifest.CloudInit{UserData: "#cloud-config\n"}
}

// seed changes what a look shows of the seed.
func (s *scene) seed(change func(*driver.Seed)) *scene {
	is := driver.Seed{}
	if s.obs.Seed != nil {
		is = *s.obs.Seed
	}
	change(&is)
	s.obs.Seed = &is
	return s
}

func otherData(s *driver.Seed) { s.Wanted = "0123456789abcdef" }
func renewed(s *driver.Seed)   { s.Next += "-1" }

func TestProvisioning_drift_isShownAndNeverActedOn(t *testing.T) {
	up := func() *scene { return newScene(cloudInit).up() }
	down := func() *scene { return up().down(driver.EndStopped).recorded() }
	cases := []struct {
		name  string
		scene *scene
		// change is the class of the change at spec.cloudInit; empty for none.
		change Class
		// status and reason are those of the condition; empty for none.
		status, reason string
		pending        bool
	}{
		{"as provisioned", up(), "", "", "", false},
		{"never started", newScene(cloudInit).seed(otherData), "", "", "", false},
		{"other data", up().seed(otherData), ClassMetadata, "True", ReasonDataChanged, true},
		{"other data, to be provisioned again", up().seed(otherData).seed(renewed), ClassNextBoot, "True", ReasonNextStart, true},
		{"the same data, to be provisioned again", up().seed(renewed), ClassNextBoot, "True", ReasonNextStart, true},
		{"unreadable", up().seed(func(s *driver.Seed) { s.Err = "no such file" }), "", "Unknown", ReasonDataUnknown, false},
		{"other data, stopped", down().edit(stopped()).seed(otherData), ClassMetadata, "True", ReasonDataChanged, true},
		{"stopped, to be provisioned again", down().edit(stopped()).seed(renewed), "", "True", ReasonNextStart, false},
		{"cloudInit removed", up().seed(otherData).edit(func(s *manifest.VirtualMachineSpec) { s.CloudInit = nil }), ClassRestart, "", "", true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.scene.opt.AllowRestart = c.change != ClassRestart // Nothing is restarted for data, however much is allowed.
			plan := c.scene.plan()
			if len(plan.Steps) > 0 && c.scene.want.Machine.Starts > 0 {
				t.Errorf("steps are %s", summary(plan))
			}
			var found Change
			for _, ch := range plan.Changes {
				if ch.Path == cloudInitPath {
					found = ch
				}
			}
			if found.Class != c.change || found.Pending != c.pending {
				t.Errorf("the change is %+v, want class %q", found, c.change)
			}
			status := StatusOf(c.scene.want, c.scene.obs, plan, t0)
			got := conditionOf(status.Conditions, ConditionProvisioningDrift)
			if got.Status != c.status || got.Reason != c.reason || c.status != "" && got.Message == "" {
				t.Errorf("the condition is %+v", got)
			}
			if c.reason == ReasonDataChanged && (!strings.Contains(got.Message, "maqet provision web") || !strings.Contains(found.Why, "maqet provision web")) {
				t.Errorf("no remedy in %q or %q", got.Message, found.Why)
			}
		})
	}
}

func TestProvisioning_restart_endsWhatWasAskedFor(t *testing.T) {
	s := newScene(cloudInit).up().seed(otherData).seed(renewed)
	s.opt.Restart = true
	plans := Forecast(s.want, s.obs, s.opt, t0)
	if last := plans[len(plans)-1]; !last.Empty() {
		t.Errorf("after the restart the plan is %s, %+v", summary(last), last.Changes)
	}
}

func TestProvisioning_addedToARunningMachine_needsARestartAndAPlace(t *testing.T) {
	s := newScene().up().edit(cloudInit)
	plan := s.plan()
	if len(plan.Changes) != 1 || plan.Changes[0].Path != cloudInitPath || plan.Changes[0].Class != ClassRestart {
		t.Errorf("changes are %+v", plan.Changes)
	}
	if diff := summary(s.down(driver.EndStopped).recorded().plan()); diff != "identity; start;" {
		t.Errorf("the plan is %s", diff)
	}
}

func TestObjectChanges_cloudInit_showsNoContent(t *testing.T) {
	const secret = "hunter2"
	withSecrets := func(n string) func(*manifest.VirtualMachineSpec) {
		return func(s *manifest.VirtualMachineSpec) {
			text, err := manifest.FreeOf(map[string]any{"password": secret + n})
			if err != nil {
				t.Fatal(err)
			}
			s.CloudInit = &manifest.CloudInit{UserData: "#cloud-config\npassword: " + secret + n, MetaData: text, NetworkConfig: text}
		}
	}
	changes := ObjectChanges(newVM("web", withSecrets("1")), newVM("web", withSecrets("22")))
	if len(changes) != 3 {
		t.Fatalf("changes are %+v", changes)
	}
	for _, c := range changes {
		if c.Class != ClassMetadata || strings.Contains(c.From+c.To+c.Why, secret) || c.From == "" || c.To == "" {
			t.Errorf("%+v", c)
		}
	}
}

// simProvisioner is the seeds of a simulated host.
type simProvisioner struct{ *simHost }

func (p simProvisioner) Reprovision(ctx context.Context, vm *manifest.VirtualMachine) (string, error) {
	name := vm.Metadata.Name
	err := p.call(ctx, "%s provision", name)
	next := ""
	p.touch(name, func(m *simMachine) {
		s := *m.obs.Seed
		s.Next = s.Instance + "-1"
		m.obs.Seed, next = &s, s.Next
	})
	return next, err
}

func (p simProvisioner) AcceptSeed(ctx context.Context, vm *manifest.VirtualMachine) error {
	name := vm.Metadata.Name
	err := p.call(ctx, "%s accept", name)
	p.touch(name, func(m *simMachine) {
		s := *m.obs.Seed
		s.Applied = s.Wanted
		m.obs.Seed = &s
	})
	return err
}

func TestProvision_driftedGuest_isOwedUntilItIsRestarted(t *testing.T) {
	inWorld(t, func(w *world) {
		w.engine.cfg.Ports.Provisioner = simProvisioner{w.host}
		vm := newVM("web", cloudInit)
		w.apply(ApplyOptions{}, vm)
		w.host.touch("web", func(m *simMachine) {
			s := *m.obs.Seed
			otherData(&s)
			m.obs.Seed = &s
		})
		if r := w.apply(ApplyOptions{}, vm); !r.Pending || r.Failed {
			t.Errorf("a drifted guest is %+v", r)
		}
		report, err := w.engine.Provision(w.Context(), "web", false)
		if err != nil || !report.Running || report.First || !strings.HasSuffix(report.InstanceID, "-1") {
			t.Fatalf("%+v, error %v", report, err)
		}
		if r := w.apply(ApplyOptions{}, vm); !r.Pending {
			t.Errorf("what is asked for is not owed: %+v", r)
		}
		if _, err := w.engine.Restart(w.Context(), "web", Options{}); err != nil {
			t.Fatal(err)
		}
		if r := w.apply(ApplyOptions{}, vm); r.Pending || r.Failed {
			t.Errorf("after the restart: %+v", r)
		}
		if status := w.host.obs("web").Seed; status.Renewing() || status.Drifted() {
			t.Errorf("the seed is %+v", status)
		}
	})
}

func TestProvision_accept_endsTheDriftAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.engine.cfg.Ports.Provisioner = simProvisioner{w.host}
		vm := newVM("web", cloudInit)
		w.apply(ApplyOptions{}, vm)
		w.host.touch("web", func(m *simMachine) {
			s := *m.obs.Seed
			otherData(&s)
			m.obs.Seed = &s
		})
		report, err := w.engine.Provision(w.Context(), "web", true)
		if err != nil || !report.Accepted {
			t.Fatalf("%+v, error %v", report, err)
		}
		if r := w.apply(ApplyOptions{}, vm); r.Pending || r.Failed {
			t.Errorf("after it was accepted: %+v", r)
		}
	})
}

func TestProvision_whatCannotBeProvisioned_isRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		w.engine.cfg.Ports.Provisioner = simProvisioner{w.host}
		w.apply(ApplyOptions{}, newVM("bare"), newVM("web", cloudInit))
		if _, err := w.engine.Provision(w.Context(), "bare", false); !errors.Is(err, ErrProblem) {
			t.Errorf("a machine without cloudInit: %v", err)
		}
		if _, err := w.engine.Provision(w.Context(), "none", false); !errors.Is(err, ErrNotFound) {
			t.Errorf("no machine: %v", err)
		}
		if _, err := w.engine.Hold(w.Context(), "web", state.Hold{}, Options{}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.engine.Provision(w.Context(), "web", false); !errors.Is(err, ErrHeld) {
			t.Errorf("a held machine: %v", err)
		}
	})
}
