package qemu

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

func TestStart_firstLook_isWhatAnotherLookSees(t *testing.T) {
	for name, paused := range map[string]bool{"running": false, "paused": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
				s.Disks = []manifest.Disk{{Name: "root", Size: 1 << 20}}
				s.NICs = []manifest.NIC{{Name: "lan", User: &manifest.UserNet{}}}
				s.Serial = &manifest.Serial{Log: true}
			})
			_, err := r.EnsureIdentity(t.Context(), vm)
			r.must(err)
			r.must(r.CreateDisk(t.Context(), vm, "root"))
			intent := &driver.Intent{Kind: driver.IntentRestart, UID: "of before"}
			r.must(r.WriteIntent(t.Context(), "web", intent))
			first, err := r.Start(t.Context(), driver.StartRequest{VM: vm, Generation: 3, Paused: paused})
			r.must(err)
			if first == nil {
				t.Fatal("there is no first look")
			}
			again := r.observe(vm, driver.DepthFull, driver.Alive)
			if again.Guest == nil || len(again.Guest.Disks) != 1 || again.Launched == nil || again.Launched.Generation != 3 {
				t.Fatalf("another look shows %+v, launched %+v", again.Guest, again.Launched)
			}
			// How old the process is, is computed anew each time, and others write to the filesystem.
			ignored := cmp.Options{
				cmpopts.IgnoreFields(driver.Observed{}, "At", "StartedAt"), cmpopts.IgnoreFields(driver.DiskFile{}, "Allocated", "Free"),
			}
			if diff := cmp.Diff(again, *first, ignored); diff != "" {
				t.Errorf("first look (-another +first):\n%s", diff)
			}
			if !first.StartedAt.Before(first.At) || !first.At.Before(again.At) {
				t.Errorf("started at %s, looked at %s, again at %s", first.StartedAt, first.At, again.At)
			}
		})
	}
}
