package reconcile

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// Provisioner renews what guests are provisioned by.
type Provisioner interface {
	// Reprovision makes the guest provision again at its next start, and returns the
	// instance-id of then. Asked for again before that start, it changes nothing more.
	Reprovision(ctx context.Context, vm *manifest.VirtualMachine) (instance string, err error)
	// AcceptSeed records that the guest is as the manifest says, without provisioning it.
	AcceptSeed(ctx context.Context, vm *manifest.VirtualMachine) error
}

// cloudInitPath is the field whose data reach a guest by its seed.
const cloudInitPath = "spec.cloudInit"

// The reasons of ProvisioningDrift.
const (
	// ReasonDataChanged is a guest that was provisioned with other data than the
	// manifest says.
	ReasonDataChanged = "DataChanged"
	// ReasonNextStart is a guest that provisions again at its next start.
	ReasonNextStart = "AtNextStart"
	// ReasonDataUnknown is a manifest's data that could not be read.
	ReasonDataUnknown = "DataUnknown"
)

// ProvisioningStatus is how a machine with cloudInit is provisioned.
type ProvisioningStatus struct {
	// InstanceID is what cloud-init in the guest knows itself by, At when it was
	// provisioned, and Digest tells its data from others. All are empty before the
	// first start.
	InstanceID string    `json:"instanceID,omitempty"`
	At         time.Time `json:"at,omitzero"`
	Digest     string    `json:"digest,omitempty"`
	// NextInstanceID is that of the next start, when it is another one: then the
	// guest provisions again.
	NextInstanceID string `json:"nextInstanceID,omitempty"`
}

// provisioningStatus is nil for a machine that is not provisioned by maqet.
func provisioningStatus(rec *state.Machine, obs *driver.Observed) *ProvisioningStatus {
	s := obs.Seed
	if s == nil || rec == nil || rec.Object.Spec.CloudInit == nil {
		return nil
	}
	out := &ProvisioningStatus{InstanceID: s.Instance, At: s.At, Digest: shortDigest(s.Applied)}
	if s.Renewing() {
		out.NextInstanceID = s.Next
	}
	return out
}

// shortDigest is as much of a digest as people compare.
func shortDigest(digest string) string { return digest[:min(len(digest), 12)] }

// provisioning tells of data that the guest was not provisioned with. Nothing is done
// about them: provisioning again is for people to decide, and restarting, too.
func (p *planner) provisioning() {
	s := p.obs.Seed
	if s == nil || p.spec.CloudInit == nil {
		return
	}
	switch {
	case s.Renewing() && p.obs.Presence == driver.Alive:
		p.change(Change{
			Path: cloudInitPath, From: "provisioned", To: "provisioned again", Class: ClassNextBoot, Pending: true,
			Why: "as maqet provision has asked for; it is done when the machine is restarted",
		})
	case s.Drifted():
		p.change(Change{
			Path: cloudInitPath, From: "data " + shortDigest(s.Applied), To: shortDigest(s.Wanted), Class: ClassMetadata, Pending: true,
			Why: fmt.Sprintf("the guest keeps what it was provisioned with; maqet provision %s gives it the manifest's data at its next start", p.plan.Machine),
		})
	}
}

// provisioningCondition is ProvisioningDrift; false when there is none.
func provisioningCondition(rec *state.Machine, obs *driver.Observed) (c state.Condition, drifted bool) {
	s := obs.Seed
	if s == nil || rec == nil || rec.Object.Spec.CloudInit == nil {
		return c, false
	}
	name := rec.Object.Metadata.Name
	c = state.Condition{Type: ConditionProvisioningDrift, Status: "True"}
	switch {
	case s.Err != "":
		c.Status, c.Reason, c.Message = "Unknown", ReasonDataUnknown, s.Err
	case s.Renewing():
		c.Reason, c.Message = ReasonNextStart, "the guest provisions again at its next start, as instance "+s.Next
		if obs.Presence == driver.Alive {
			c.Message += ": maqet restart " + name
		}
	case s.Drifted():
		c.Reason = ReasonDataChanged
		c.Message = fmt.Sprintf("the guest was provisioned with other data at %s: maqet provision %s, and a restart, give it the manifest's; maqet provision --accept %s takes it as it is",
			s.At.UTC().Format(time.RFC3339), name, name)
	default:
		return c, false
	}
	return c, true
}

// seedWhy says when a change of the seed's data takes effect; empty for the path of
// another field.
func seedWhy(path string, seed *driver.Seed, machine string) string {
	switch {
	case !strings.HasPrefix(path, cloudInitPath+"."):
		return ""
	case seed.Provisioned() && !seed.Renewing():
		return "the guest keeps what it was provisioned with; maqet provision " + machine + " gives it this at its next start"
	default:
		return "the guest is provisioned with it at its next start"
	}
}

// ProvisionReport is what came of a request to provision again.
type ProvisionReport struct {
	Machine string `json:"machine"`
	// InstanceID is that of the next start, or of now when the guest was accepted as it is.
	InstanceID string `json:"instanceID"`
	// First is true when the guest was never started with a seed: it will be
	// provisioned at its first start anyway, and nothing was changed.
	First bool `json:"first,omitempty"`
	// Running is true when a restart is what brings it about.
	Running bool `json:"running"`
	// Accepted is true when only the record was changed.
	Accepted bool `json:"accepted,omitempty"`
}

// Provision makes a guest provision again at its next start or, with accept, takes it
// as it is. It restarts nothing.
func (e *Engine) Provision(ctx context.Context, name string, accept bool) (ProvisionReport, error) {
	report := ProvisionReport{Machine: name, Accepted: accept}
	if _, err := e.actable(ctx, "provision", name); err != nil {
		return report, err
	}
	err := e.Locked(ctx, name, func(ctx context.Context, v View) error {
		ctx, cancel := context.WithTimeout(ctx, e.cfg.Timing.Lock)
		defer cancel()
		vm, ports := &v.Machine.Object, e.cfg.Ports
		if vm.Spec.CloudInit == nil {
			return &Error{
				Object: "vm/" + name, Op: "provision", Err: ErrProblem, Detail: "it has no spec.cloudInit",
				Hint: "add it to the manifest and apply",
			}
		}
		report.First = !v.Observed.Seed.Provisioned()
		report.Running = v.Observed.Presence == driver.Alive
		var err error
		if accept {
			if v.Observed.Seed != nil {
				report.InstanceID = v.Observed.Seed.Next
			}
			err = ports.Provisioner.AcceptSeed(ctx, vm)
		} else {
			report.InstanceID, err = ports.Provisioner.Reprovision(ctx, vm)
		}
		if err != nil || report.First {
			return err
		}
		what := "the guest provisions again at its next start, as instance " + report.InstanceID
		if accept {
			what = "the guest was accepted as the manifest says, without provisioning it again"
		}
		e.journal(ctx, []state.Event{e.event(name, v.Machine.Generation, state.EventNormal, state.EventProvisioning, what)})
		return nil
	})
	return report, err
}
