package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// plugRig is a machine whose guest tells what it sees.
type plugRig struct {
	*rig
	vm    *manifest.VirtualMachine
	guest *guestShell
	// base is how many PCI devices it had when it was booted.
	base int
}

// bootPlugs boots the tiny guest with spare ports.
func bootPlugs(t *testing.T, change ...func(*manifest.VirtualMachineSpec)) *plugRig {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a guest")
	}
	r := newRig(t)
	vm := r.vm("web", append([]func(*manifest.VirtualMachineSpec){tinyGuest(t, ""), func(s *manifest.VirtualMachineSpec) {
		s.Machine.HotplugPorts = 3
	}}, change...)...)
	r.start(vm, false)
	p := &plugRig{rig: r, vm: vm, guest: r.shell()}
	p.base = strings.Count(p.guest.must(listPCI), "\n")
	return p
}

// edit changes the spec.
func (r *plugRig) edit(change func(*manifest.VirtualMachineSpec)) {
	vm := r.vm.DeepCopy()
	change(&vm.Spec)
	r.vm = manifest.Resolve(vm, r.layout.State)
}

func (r *plugRig) plug(part driver.Part) {
	r.t.Helper()
	r.must(r.Plug(r.t.Context(), r.vm, part))
}

// unplug has the guest let go of a device, waits until it has, and removes what was
// behind it.
func (r *plugRig) unplug(part driver.Part) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), guestTimeout)
	defer cancel()
	now := time.Now()
	r.must(r.Unplug(ctx, "web", part, driver.Unplug{Since: now, Asked: now, Deadline: now.Add(guestTimeout)}))
	for {
		r.must(r.Await(ctx, "web", r.vm, driver.Awaited{Unplug: true}))
		if !slices.Contains(names(r.observe(r.vm, driver.DepthGuest, driver.Alive).Guest), part.Name) {
			break
		}
	}
	r.must(r.Drop(ctx, "web", part))
}

// names are those of a guest's disks, nics and devices.
func names(g *driver.Guest) (all []string) {
	for _, d := range g.Disks {
		all = append(all, d.Name)
	}
	for _, n := range g.NICs {
		all = append(all, n.Name)
	}
	for _, d := range g.Devices {
		all = append(all, d.Name)
	}
	return all
}

// listPCI lists the PCI devices that the guest sees, but for root ports.
const listPCI = `for d in /sys/bus/pci/devices/*; do echo "${d##*/} $(cat $d/class)"; done | grep -v 0x060400`

// pci are the guest's PCI devices as "address class", once there are so many more than
// when it was booted first. It is what the guest names its devices by.
func (r *plugRig) pci(more int) []string {
	r.t.Helper()
	r.guest.await(fmt.Sprintf("test $(%s | wc -l) = %d", listPCI, r.base+more))
	return strings.Split(strings.TrimSpace(r.guest.must(listPCI)), "\n")
}

// again starts the machine cold, and compares what QEMU and the guest say then.
func (r *plugRig) again(more int) {
	r.t.Helper()
	live, seen := r.observe(r.vm, driver.DepthFull, driver.Alive), r.pci(more)
	ctx := r.t.Context()
	r.must(r.Quit(ctx, "web"))
	r.waitEnd("web")
	r.must(r.ClearRun(ctx, "web"))
	r.start(r.vm, false)
	r.guest = r.shell()
	cold := r.observe(r.vm, driver.DepthFull, driver.Alive)
	// A start makes as many spare ports as before, beyond those that are used now.
	live.Guest.Ports, live.Guest.AddedCPUs = cold.Guest.Ports, cold.Guest.AddedCPUs
	if d := driver.DeviceDifferences(live.Guest, cold.Guest); len(d) > 0 {
		r.t.Errorf("the next start made another machine: %v", d)
	}
	if diff := cmp.Diff(seen, r.pci(more)); diff != "" {
		r.t.Errorf("the guest sees other devices after a cold start (-live +cold):\n%s", diff)
	}
	if diff := cmp.Diff(text(r.t, live.Launched.Spec), text(r.t, cold.Launched.Spec)); diff != "" {
		r.t.Errorf("the launch record of live changes is not that of a start (-live +cold):\n%s", diff)
	}
}

// text is a spec as JSON.
func text(t testing.TB, spec manifest.VirtualMachineSpec) string {
	t.Helper()
	b, err := json.MarshalIndent(spec, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// forwards are those that QEMU has on a nic.
func (r *plugRig) forwards(nic string) []manifest.Forward {
	r.t.Helper()
	var text string
	r.ask("web", "human-monitor-command", map[string]any{"command-line": "info usernet"}, &text)
	return parseForwards(text)[NetdevID(nic)]
}

func nicPart(name string) driver.Part { return driver.Part{List: driver.ListNICs, Name: name} }

func TestPlug_guest_nicsComeAndGoAndKeepTheirPlaces(t *testing.T) {
	boards := []string{"q35"}
	if os.Getenv("MAQET_SOAK") == "1" {
		boards = append(boards, "pc")
	}
	for _, board := range boards {
		t.Run(board, func(t *testing.T) {
			r := bootPlugs(t, func(s *manifest.VirtualMachineSpec) {
				s.NICs = []manifest.NIC{{Name: "lan", User: &manifest.UserNet{}}}
				if s.Machine.Type = board; board == "pc" {
					s.Machine.HotplugPorts = 0
				}
			})
			port, other := freePort(t), freePort(t)
			forward := func(port, to int) string { return fmt.Sprintf("tcp:127.0.0.1:%d:%d", port, to) }
			r.edit(func(s *manifest.VirtualMachineSpec) {
				s.NICs = append(s.NICs,
					manifest.NIC{Name: "dmz", User: &manifest.UserNet{Forward: []string{forward(port, 80)}}, MAC: "52:54:00:00:00:77"},
					manifest.NIC{Name: "old", Model: "e1000", User: &manifest.UserNet{}})
			})
			r.plug(nicPart("dmz"))
			r.plug(nicPart("old"))
			r.guest.await("grep -q 52:54:00:00:00:77 /sys/class/net/*/address")
			if got := r.observe(r.vm, driver.DepthGuest, driver.Alive).Guest.NICs; len(got) != 3 || got[0].MAC != "52:54:00:00:00:77" || got[2].Model != "e1000" {
				t.Fatalf("QEMU has %+v", got)
			}
			// Forwards move from nic to nic.
			r.edit(func(s *manifest.VirtualMachineSpec) {
				s.NICs[1].User = &manifest.UserNet{Forward: []string{forward(other, 22)}}
				s.NICs[2].User = &manifest.UserNet{Forward: []string{forward(port, 8080)}}
			})
			r.must(r.Forward(t.Context(), r.vm))
			r.must(r.Forward(t.Context(), r.vm))
			for nic, want := range map[string]manifest.Forward{
				"dmz": {Proto: "tcp", HostAddr: "127.0.0.1", HostPort: other, GuestPort: 22},
				"old": {Proto: "tcp", HostAddr: "127.0.0.1", HostPort: port, GuestPort: 8080},
			} {
				if got := r.forwards(nic); len(got) != 1 || got[0] != want {
					t.Errorf("%s forwards %+v, want %+v", nic, got, want)
				}
			}
			r.again(2)
			// One in the middle goes, and nothing else moves.
			r.unplug(nicPart("dmz"))
			r.edit(func(s *manifest.VirtualMachineSpec) { s.NICs = slices.Delete(s.NICs, 1, 2) })
			r.again(1)
		})
	}
}

// awaitLocked waits until the guest has locked the tray of a drive.
func (r *plugRig) awaitLocked(name string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), guestTimeout)
	defer cancel()
	for {
		var drives []struct {
			QDev   string `json:"qdev"`
			Locked bool   `json:"locked"`
		}
		r.ask("web", "query-block", nil, &drives)
		for _, d := range drives {
			if named := (blockDrive{QDev: d.QDev}); named.name() == name && d.Locked {
				return
			}
		}
		r.must(pause(ctx, 10*time.Millisecond))
	}
}

func diskPart(name string) driver.Part { return driver.Part{List: driver.ListDisks, Name: name} }

func devicePart(name string) driver.Part { return driver.Part{List: driver.ListDevices, Name: name} }

// TestPlug_guest_disksMediaAndDevicesComeAndGo also adds vCPUs, since a boot is dear.
func TestPlug_guest_disksMediaAndDevicesComeAndGo(t *testing.T) {
	iso := func(name string) string { return rawFile(t, shortDir(t)+"/"+name, 1<<20) }
	first, second := iso("first"), iso("second")
	r := bootPlugs(t, func(s *manifest.VirtualMachineSpec) {
		s.Machine.HotplugPorts = 6
		s.CPU = &manifest.CPU{Count: 1, MaxCount: 3}
		s.Disks = []manifest.Disk{{Name: "cd", Media: manifest.MediaCDROM, Bus: manifest.BusVirtioSCSI}}
	})
	r.edit(func(s *manifest.VirtualMachineSpec) {
		s.Disks = append(s.Disks,
			manifest.Disk{Name: "data", Size: 2 << 20, Serial: "DATA-1", IOThread: true, Throttle: &manifest.Throttle{IOPS: 500}},
			manifest.Disk{Name: "scsi", Size: 3 << 20, Bus: manifest.BusVirtioSCSI},
			manifest.Disk{Name: "card", Size: 4 << 20, Bus: manifest.BusNVMe, Serial: "CARD"})
		s.Devices = []manifest.Device{
			{Name: "rng0", Driver: "virtio-rng-pci", Properties: map[string]manifest.Scalar{"max-bytes": manifest.ScalarOf(1024), "period": manifest.ScalarOf(1000)}},
			{Name: "balloon0", Driver: "virtio-balloon-pci"},
		}
	})
	for _, name := range []string{"data", "scsi", "card"} {
		r.must(r.CreateDisk(t.Context(), r.vm, name))
		r.plug(diskPart(name))
	}
	r.plug(devicePart("rng0"))
	r.plug(devicePart("balloon0"))
	r.must(r.ThrottleDisk(t.Context(), r.vm, "data"))
	sizes := func(sectors ...string) {
		t.Helper()
		for _, n := range sectors {
			r.guest.await("grep -qx " + n + " /sys/block/*/size")
		}
	}
	sizes("4096", "6144", "8192")
	r.guest.await("grep -q virtio_rng /sys/class/misc/hw_random/rng_available")

	r.edit(func(s *manifest.VirtualMachineSpec) { s.CPU.Count = 2 })
	r.must(r.AddCPUs(t.Context(), r.vm))
	r.must(r.AddCPUs(t.Context(), r.vm))
	r.guest.await("test -d /sys/devices/system/cpu/cpu1 && ! test -d /sys/devices/system/cpu/cpu2")
	if n := r.observe(r.vm, driver.DepthGuest, driver.Alive).Guest.CPUs; n != 2 {
		t.Errorf("QEMU has %d vCPUs, want 2", n)
	}

	// Media, in both directions.
	medium := func(file string) {
		t.Helper()
		r.edit(func(s *manifest.VirtualMachineSpec) { s.Disks[0].File = file; s.Disks[0].Format = "" })
		r.must(r.Medium(t.Context(), r.vm, diskPart("cd")))
		cd := r.observe(r.vm, driver.DepthGuest, driver.Alive).Guest.Disks[1]
		if cd.Name != "cd" || cd.File != file || cd.Empty != (file == "") {
			t.Fatalf("the drive has %+v, want %q", cd, file)
		}
	}
	medium(first)
	r.guest.await("dd if=/dev/sr0 of=/dev/null bs=2048 count=1")
	// What the guest has open locks the tray, and is left alone.
	r.guest.must("sleep 1000 </dev/sr0 & echo $! >/tmp/holder")
	r.awaitLocked("cd")
	r.edit(func(s *manifest.VirtualMachineSpec) { s.Disks[0].File = second })
	if err := r.Medium(t.Context(), r.vm, diskPart("cd")); !errors.Is(err, ErrTrayLocked) {
		t.Errorf("Medium of a locked tray = %v", err)
	}
	if cd := r.observe(r.vm, driver.DepthGuest, driver.Alive); cd.Guest.Disks[1].File != first || cd.Launched.Spec.Disks[0].File != first {
		t.Errorf("the drive has %+v, recorded is %+v", cd.Guest.Disks[1], cd.Launched.Spec.Disks[0])
	}
	r.guest.must("kill $(cat /tmp/holder)")
	medium(second)
	medium("")
	medium(first)
	r.again(4)
	sizes("4096", "6144", "8192")
	r.guest.await("test $(nproc) = 2")

	for _, name := range []string{"data", "scsi", "card"} {
		r.unplug(diskPart(name))
	}
	r.unplug(devicePart("rng0"))
	r.edit(func(s *manifest.VirtualMachineSpec) { s.Disks, s.Devices = s.Disks[:1], s.Devices[1:] })
	var nodes []struct {
		Name string `json:"node-name"`
	}
	r.ask("web", "query-named-block-nodes", map[string]any{"flat": true}, &nodes)
	if len(nodes) != 2 {
		t.Errorf("QEMU has the block nodes %v, want those of the cdrom", nodes)
	}
	var threads []any
	if r.ask("web", "query-iothreads", nil, &threads); len(threads) > 0 {
		t.Errorf("QEMU has the threads %v", threads)
	}
	for _, name := range []string{"data", "scsi", "card"} {
		if _, err := os.Stat(r.layout.Disk("web", name)); err != nil {
			t.Errorf("the data of disk %s: %v", name, err)
		}
	}
	r.again(1)
}
