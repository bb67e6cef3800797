// Package guest makes the tiny Linux guest that the end-to-end tests, the
// benchmarks and `make demo` boot: Debian's cloud kernel and an initramfs of
// busybox, a handful of modules and one shell script. It boots to its marker in
// about two seconds without KVM, in 128 MiB.
//
// # Use
//
// In a test:
//
//	g := guest.Path(t)
//	args := []string{"-kernel", g.Kernel, "-initrd", g.Initrd, "-append", g.Cmdline}
//
// From a shell: `go run ./e2e/cmd/mkguest -o build/guest`.
//
// There are two flavours, each kept in its own folder below build/: [Cloud], which
// most tests want, and [Generic], whose kernel drives SATA and USB (`PathOf`).
//
// The kernel and busybox packages are downloaded by `apt-get download` and only
// unpacked, never installed. The result is kept until the recipe (the script and
// the list of modules) changes or `make clean` removes it.
//
// # What the guest does
//
// It prints a line starting with [Marker] on ttyS0, answers HTTP on port 80 of
// eth0 (10.0.2.15/24, the address QEMU's user networking expects), powers off on
// the ACPI power button, loads the drivers of hot-plugged devices, and reads
// commands from ttyS0, one per line, each answered by its output and a line
// `[exit N]`.
//
// Switches of the kernel command line:
//
//	maqet.name=NAME     the host name, shown in the marker, the prompt and the web page
//	maqet.ip=ADDR/LEN   the address of eth0
//	maqet.port=PORT     the port of the web page
//	maqet.noacpi        the power button is ignored
//	maqet.delay=S       the web page and the marker come S seconds late
//	maqet.poweroff[=S]  powers itself off S seconds after the marker (at once without S)
//	maqet.reboot[=S]    reboots itself
//	maqet.panic[=S]     panics; the kernel's own panic=N decides what follows
//
// [AgentPath] is the same guest with Debian's qemu-guest-agent in it.
//
// # Caveats
//
// Only amd64 hosts with Debian's package archive can build it. The cloud kernel
// has no USB, AHCI, 9p, e1000 or i6300esb driver; of those the generic flavour has
// the first three with it, since its list of modules names no others. The guest is not deterministic
// to the byte: it follows the kernel the archive has today, and records which one
// in manifest.json.
package guest
