package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
)

// accelNames are the accelerators QEMU has, on any host.
func accelNames() []string {
	return []string{"hax", "hvf", "kvm", "nvmm", "tcg", "whpx", "xen"}
}

// AccelProblem is an accelerator that cannot be used now.
type AccelProblem struct {
	// Accelerator is its name.
	Accelerator string
	// Msg says why, Hint what to do.
	Msg, Hint string
}

// Error is "message; hint".
func (e *AccelProblem) Error() string { return e.Msg + "; " + e.Hint }

// Accelerator returns nil when host's binary can initialise an accelerator now,
// and an *AccelProblem when it cannot. It is found out by a scratch process that
// must answer. Only success is remembered, and only until something it may
// depend on changes: a failure may pass.
func (p *Prober) Accelerator(ctx context.Context, host driver.Host, name string) error {
	if !slices.Contains(host.Accelerators, name) {
		return &AccelProblem{name, fmt.Sprintf("%s was built without accelerator %q", host.Binary, name), accelHint(host, name)}
	}
	if name == "kvm" {
		if problem := kvmProblem(p.kvm); problem != nil {
			return problem
		}
	}
	key := p.circumstances(host)
	if p.workedBefore(host, name, key) {
		return nil
	}
	_, err := p.runScratch(ctx, host.Binary, []string{"-accel", name})
	var broken *BinaryError
	switch {
	case err == nil:
		p.itWorks(host, name, key)
		return nil
	case errors.As(err, &broken):
		return &AccelProblem{name, fmt.Sprintf("accelerator %q does not initialise: %s %s", name, host.Binary, broken.message()), initHint(name)}
	default:
		return err
	}
}

// accelHint is the remedy for an accelerator that is not compiled in.
func accelHint(host driver.Host, name string) string {
	return suggest(name, host.Accelerators, "it has "+strings.Join(host.Accelerators, " and "))
}

// initHint is the remedy for an accelerator that does not initialise.
func initHint(name string) string {
	if name == "kvm" {
		return "look for kvm in the kernel's log (dmesg); another hypervisor may hold the processor. " + fallbackHint
	}
	return "name another one in spec.emulator.accelerators"
}

const fallbackHint = "Or write accelerators: [kvm, tcg], which falls back to slow emulation"

// kvmProblem says in words why the device of KVM cannot be opened; nil when it can.
func kvmProblem(path string) *AccelProblem {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd) // nothing was done with it
		return nil
	}
	return kvmRefusal(path, err)
}

// kvmRefusal is what an error of opening KVM's device means.
func kvmRefusal(path string, err error) *AccelProblem {
	e := &AccelProblem{Accelerator: "kvm"}
	switch {
	case errors.Is(err, unix.ENOENT):
		e.Msg = path + " does not exist: the kernel's KVM module is not loaded, or the processor offers no virtualisation here"
		e.Hint = "load kvm_intel or kvm_amd (modprobe), switch virtualisation on in the firmware, and in a virtual machine or container have the host pass it on. " + fallbackHint
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		mode, group := ownerOf(path)
		e.Msg = fmt.Sprintf("no permission to open %s (mode %s, group %s)", path, mode, group)
		e.Hint = fmt.Sprintf("join the group that owns it (usermod -aG %s USER, then log in again). %s", group, fallbackHint)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		e.Msg = path + " is there, but no such device is behind it: the kernel's KVM module is missing or found no virtualisation"
		e.Hint = "load kvm_intel or kvm_amd (modprobe) and read the kernel's log (dmesg). " + fallbackHint
	default:
		e.Msg = fmt.Sprintf("%s cannot be opened: %v", path, err)
		e.Hint = "check the device. " + fallbackHint
	}
	return e
}

// ownerOf is the mode and the group of a file, for the error of one who may not
// open it.
func ownerOf(path string) (mode, group string) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "unknown", "unknown"
	}
	group = strconv.FormatUint(uint64(st.Gid), 10)
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return fmt.Sprintf("%04o", st.Mode&0o777), group
}

// bootIDFile names the current boot.
const bootIDFile = "/proc/sys/kernel/random/boot_id"

// circumstances are what success of an accelerator depends on, as far as it can
// be seen: the boot, the binary, KVM's device, and who we are.
func (p *Prober) circumstances(host driver.Host) string {
	boot, err := os.ReadFile(bootIDFile)
	if err != nil {
		return "" // Without it nothing is remembered.
	}
	key := fmt.Sprintf("%s %s", cacheFormat, strings.TrimSpace(string(boot)))
	if b, err := findBinary(host.Binary); err == nil {
		key += " " + b.key
	}
	var st unix.Stat_t
	if err := unix.Stat(p.kvm, &st); err == nil {
		key += fmt.Sprintf(" kvm %o %d %d %d", st.Mode, st.Uid, st.Gid, st.Rdev)
	}
	groups, err := os.Getgroups()
	if err != nil {
		return ""
	}
	slices.Sort(groups)
	return key + fmt.Sprintf(" as %d %d %v", os.Geteuid(), os.Getegid(), groups)
}

// cachedWorks is what is kept of accelerators on the disk.
type cachedWorks struct {
	Key   string   `json:"key"`
	Works []string `json:"works"`
}

// workedBefore tells whether an accelerator initialised under these circumstances.
func (p *Prober) workedBefore(host driver.Host, name, key string) bool {
	if key == "" {
		return false
	}
	p.mu.Lock()
	worked := p.works[host.Binary+" "+name] == key
	p.mu.Unlock()
	return worked || slices.Contains(p.readWorks(host, key), name)
}

// readWorks are the accelerators kept as working under these circumstances.
func (p *Prober) readWorks(host driver.Host, key string) []string {
	text, err := os.ReadFile(p.cacheFile("accel", host.Binary))
	if err != nil {
		return nil
	}
	var c cachedWorks
	if err := json.Unmarshal(text, &c); err != nil || c.Key != key {
		return nil
	}
	return c.Works
}

// itWorks remembers a success.
func (p *Prober) itWorks(host driver.Host, name, key string) {
	if key == "" {
		return
	}
	p.mu.Lock()
	p.works[host.Binary+" "+name] = key
	p.mu.Unlock()
	works := append(p.readWorks(host, key), name)
	slices.Sort(works)
	p.store(p.cacheFile("accel", host.Binary), cachedWorks{key, slices.Compact(works)})
}
