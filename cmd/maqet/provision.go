package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/reconcile"
)

func newProvision(a *app) *cobra.Command {
	var accept bool
	cmd := &cobra.Command{
		Use:   "provision VM...",
		Short: "Have a guest provision itself again at its next start",
		Long: `Have a guest provision itself again at its next start, with what spec.cloudInit in its
manifest says then: its seed gets another instance-id, which cloud-init takes for a new
machine. Nothing is restarted; do that with maqet restart. What cloud-init does for a
new machine includes new host keys for SSH, and running runcmd and scripts again.

A changed cloudInit reaches a guest in this way only: until then the machine has the
condition ProvisioningDrift. With --accept the guest is taken as it is, since you have
brought it to what the manifest says by hand; nothing is provisioned then.`,
		Example: "  maqet provision web && maqet restart web\n  maqet provision --accept web",
		Args:    someMachines, ValidArgsFunction: completeMachines(a, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := machineNames(args)
			if err != nil {
				return err
			}
			return provision(cmd.Context(), a, names, accept)
		},
	}
	cmd.Flags().BoolVar(&accept, "accept", false, "take the guest as what the manifest says, without provisioning it")
	return cmd
}

func provision(ctx context.Context, a *app, names []string, accept bool) error {
	if err := mustKnow(ctx, a, names, "provision"); err != nil {
		return err
	}
	engine, err := a.engine(nil)
	if err != nil {
		return err
	}
	for _, name := range names {
		report, err := engine.Provision(ctx, name, accept)
		if err != nil {
			return err
		}
		announce(a.env, name, "%s", provisionWords(report))
	}
	return nil
}

// provisionWords say what was done, and what has to follow.
func provisionWords(r reconcile.ProvisionReport) string {
	switch {
	case r.First:
		return "is provisioned at its first start; there is nothing to renew"
	case r.Accepted:
		return "counts as provisioned with what its manifest says; nothing was done to the guest"
	case r.Running:
		return fmt.Sprintf("provisions again at its next start, as instance %s; it runs on until: maqet restart %s", r.InstanceID, r.Machine)
	default:
		return fmt.Sprintf("provisions again at its next start, as instance %s", r.InstanceID)
	}
}

// describeProvisioning is when and as what a guest was provisioned; empty for one that
// maqet does not provision.
func describeProvisioning(p *reconcile.ProvisioningStatus) string {
	switch {
	case p == nil:
		return ""
	case p.InstanceID == "":
		return "at the first start"
	default:
		return fmt.Sprintf("%s, instance %s, data %s", timeCell(p.At), p.InstanceID, p.Digest)
	}
}
