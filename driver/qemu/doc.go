// Package qemu turns one machine's manifest and identity into a QEMU command
// line, says what a QEMU binary on this host can do, and starts, finds again,
// observes and changes QEMU processes.
//
// # What it is
//
// [Allocate] decides what a guest recognises itself by: uuid, MAC addresses,
// slots and the versioned machine type. [Render] makes the command line. Both
// are pure: the same input gives the same output, and nothing outside it is
// looked at. [Prober] asks a binary, through a scratch process of it that runs
// no guest, which boards, devices and CPU models it has, and checks a manifest
// against the answer before anything is started.
//
// # Basics
//
//	host, findings, err := prober.Check(ctx, vm)
//	id, changed, err := qemu.Allocate(id, vm, host, rand.Reader, time.Now())
//	// store id when changed, then:
//	cmd, err := qemu.Render(qemu.RenderInput{VM: vm, Identity: id, Host: host, Layout: l})
//	// start cmd.Argv with cmd.Files as descriptors 3, 4, 5...
//
// [Driver] works on the processes:
//
//	d := qemu.New(qemu.Config{Layout: l, Timing: timing.Default(), Locks: locks, Prober: prober, Images: images})
//	unlock, err := d.Lock(ctx, "web")
//	defer unlock()
//	_, err = d.EnsureIdentity(ctx, vm)
//	first, err := d.Start(ctx, driver.StartRequest{VM: vm})
//	observed := d.Observe(ctx, "web", vm, driver.DepthFull)
//
// # Processes
//
// A start is confirmed by the answer to query-status, on a connection that was made
// before QEMU ran. A QEMU outlives the maqet that started it. It is found again by
// its pid file, or by its uuid among all processes when the run dir has vanished,
// and counts as ours when its command line is the recorded one, word for word. It is
// held by a pidfd before that is looked at, and signalled through nothing else.
//
// The lock of the cli socket is held by whoever starts a machine, visits it, or
// writes or clears its launch record. So a launch record without a process means
// under that lock that the process has ended. An empty file "confirmed" beside the
// record tells an end from a start that failed.
//
// # What maqet adds to a command line
//
// Only what the manifest cannot say and a supervisor needs: -nodefaults (left
// out by emulator.defaultDevices), -no-user-config, -display none, -name, -uuid,
// -pidfile, two QMP monitors, -S when the machine is to start paused, -sandbox,
// one PCIe root port for each PCI device, and MAC addresses. The machine type is
// passed as the versioned name that was resolved once, so that a newer QEMU gives
// the guest the same board. Block nodes say locking=on and auto-read-only=false, so
// that an image which is in use or cannot be written fails the start.
//
// Devices, block nodes and netdevs are passed as JSON, where commas, colons and
// equals signs in names and paths mean nothing. The options that have no JSON
// form double their commas.
//
// # Where devices sit
//
// On boards with PCI Express every PCI device of the manifest has its own root
// port, "maqet.port.N", and sits at address 0 behind it. Every port from the first
// to the highest that was ever given out is there at each start, so removing one
// device moves no other. The ports lie on pcie.0 at device numbers 4 to 0x17. machine.hotplugPorts adds free ports behind those. On
// the pc board devices sit on pci.0 at a recorded device number. SATA drives sit
// at a recorded port of the q35 board's own AHCI controller, virtio-scsi drives at a
// recorded target of "maqet.scsi", and USB drives, each behind a bridge of its own, at
// a recorded port of "maqet.usb". These two controllers are PCI devices with a place
// of their own, and there when a drive needs them.
//
// A device whose properties name bus or addr is placed by its author: it gets no
// slot, and neither of the two is added.
//
// # Names
//
// Everything maqet adds carries a dot, which a name in a manifest cannot, so the
// two never clash: "maqet.port.3", "maqet.qmp", "root.file", "root.bot", "lan.net". A disk's
// format node and its drive are called like the disk, a network card like the nic.
//
// # How QEMU is confined
//
// Each QEMU runs in a session of its own, with umask 077, with no descriptor but those
// made for it, and as the user of emulator.runAs, who is set before exec. That user
// owns the run dir then, so what lies there is believed only when it is maqet's own
// file, and links are not followed. Where systemd answers, it puts QEMU into a scope,
// which outlives the unit or the session that maqet runs in.
//
// # How an end is told
//
// What a process leaves behind shows whether its end was orderly. Who brought it about
// QEMU says only to whoever is connected, so [Driver.Watch] writes it down beside the
// sockets, and every later look finds it.
//
// # Caveats
//
// A serial probe looks at single lines. What is rotated away before anybody looked
// is not seen by it.
//
// The port of a guest behind a forward counts as open once QEMU's own table shows
// that the guest has answered; the table does not tell whose connection it was.
//
// Whether an accelerator is usable is found out by initialising it, which is not
// the same as running a guest: a KVM that initialises may still hang a kernel.
//
// Properties of devices reach QEMU with the type they have in the manifest, and
// QEMU's JSON is strict: 1024 is a number, "1024" is not, and properties that
// take on, off or auto want text.
package qemu
