package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

// testProber is a prober with a state dir of its own.
func testProber(t testing.TB) *Prober {
	t.Helper()
	return NewProber(layout.Layout{State: t.TempDir(), Run: t.TempDir()}, timing.Default(), filelock.New())
}

// program makes an executable script.
func program(t testing.TB, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu-system-test")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// countedQEMU is the real QEMU behind a script that counts how often it is run.
func countedQEMU(t testing.TB) (path string, count func() int) {
	t.Helper()
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
	runs := filepath.Join(t.TempDir(), "runs")
	path = program(t, fmt.Sprintf("echo >> %s\nexec %s \"$@\"", runs, qemu))
	return path, func() int {
		text, err := os.ReadFile(runs)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.Count(string(text), "\n")
	}
}

// fakeHost makes a prober believe that a file is a QEMU of that kind.
func fakeHost(t testing.TB, p *Prober, host driver.Host) (binary string) {
	t.Helper()
	b, err := findBinary(program(t, "echo this is no QEMU >&2; exit 1"))
	if err != nil {
		t.Fatal(err)
	}
	host.Binary = b.path
	p.writeCache(b, host)
	return b.path
}

func TestProber_realQEMU_saysWhatItCan(t *testing.T) {
	host := realHost(t)
	if !filepath.IsAbs(host.Binary) || host.Arch != "x86_64" || !host.Version.AtLeast(7, 2) {
		t.Errorf("host is %s %s %s", host.Binary, host.Arch, host.Version)
	}
	if q := host.Machines["q35"]; !strings.HasPrefix(q.Name, "pc-q35-") || q.Alias != "q35" || host.Machines[q.Name] != q || q.MaxCPU < 2 {
		t.Errorf("q35 is %+v", q)
	}
	if d := host.DefaultMachine; host.Machines["pc"].Name != d {
		t.Errorf("the default machine is %q, pc is %+v", d, host.Machines["pc"])
	}
	for name, pci := range map[string]bool{"virtio-blk-pci": true, "e1000": true, "pcie-root-port": true, "isa-serial": false, "ide-cd": false, "virtserialport": false} {
		if !host.Devices[name] || host.PCIDevices[name] != pci {
			t.Errorf("%s: known %v, PCI %v, want PCI %v", name, host.Devices[name], host.PCIDevices[name], pci)
		}
	}
	if !slices.Contains(host.CPUModels, "max") || !slices.Contains(host.Accelerators, "tcg") || slices.Contains(host.Accelerators, "accel") {
		t.Errorf("CPU models %v, accelerators %v", host.CPUModels, host.Accelerators)
	}
}

func TestProber_answers_areKeptUntilTheBinaryChanges(t *testing.T) {
	path, count := countedQEMU(t)
	p := testProber(t)
	asked, err := p.Host(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := p.Host(t.Context(), path)
	if err != nil || count() != 1 || !cmp.Equal(asked, again) {
		t.Fatalf("second question: error %v, %d runs", err, count())
	}
	other := NewProber(p.layout, p.times, filelock.New())
	kept, err := other.Host(t.Context(), path)
	if err != nil || count() != 1 {
		t.Fatalf("another process: error %v, %d runs", err, count())
	}
	if diff := cmp.Diff(asked, kept); diff != "" {
		t.Errorf("the kept answer differs (-asked +kept):\n%s", diff)
	}
	if info, err := os.Stat(p.cacheFile("host", path)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the kept answer's file: %v, %v", info, err)
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Host(t.Context(), path); err != nil || count() != 2 {
		t.Errorf("after a change: error %v, %d runs", err, count())
	}
}

func TestProber_damagedCache_isAskedAgain(t *testing.T) {
	path, count := countedQEMU(t)
	p := testProber(t)
	if _, err := p.Host(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.cacheFile("host", path), []byte(`{"key": "`), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := NewProber(p.layout, p.times, filelock.New())
	if _, err := fresh.Host(t.Context(), path); err != nil || count() != 2 {
		t.Errorf("error %v, %d runs", err, count())
	}
}

func TestProber_modulesChanged_isAskedAgain(t *testing.T) {
	modules := t.TempDir()
	t.Setenv("QEMU_MODULE_DIR", modules)
	path := program(t, "exit 1")
	before, err := findBinary(path)
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(modules, later, later); err != nil {
		t.Fatal(err)
	}
	after, err := findBinary(path)
	if err != nil || before.key == after.key {
		t.Errorf("error %v, keys %q and %q", err, before.key, after.key)
	}
}

func TestProber_manyAtOnce_askOnce(t *testing.T) {
	path, count := countedQEMU(t)
	first := testProber(t)
	var all sync.WaitGroup
	for range 6 {
		p := NewProber(first.layout, first.times, filelock.New())
		all.Go(func() {
			if _, err := p.Host(t.Context(), path); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if count() != 1 {
		t.Errorf("%d runs, want 1", count())
	}
}

func TestProber_stateDirThatCannotBeWritten_answersAllTheSame(t *testing.T) {
	path, _ := countedQEMU(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := NewProber(layout.Layout{State: file, Run: file}, timing.Default(), filelock.New())
	if _, err := p.Host(t.Context(), path); err != nil {
		t.Error(err)
	}
}

func TestProber_badBinary_isToldInWords(t *testing.T) {
	tests := []struct {
		name, binary, says, hint string
	}{
		{"not in PATH", "qemu-system-aarch65", "is not in PATH", "install QEMU"},
		{"package named", "qemu-system-sparc", "is not in PATH", "qemu-system-misc"},
		{"missing file", "/nowhere/qemu-system-x86_64", "does not exist", "qemu-system-x86"},
		{"relative", "./qemu", "neither a name nor an absolute path", "whole path"},
		{"not executable", "/etc/passwd", "cannot be run", "permissions"},
		{"dies", program(t, "echo first >&2; echo 'bad news' >&2; exit 3"), "ended before it answered: bad news", "-machine none"},
		{"dies in silence", program(t, "exit 3"), "exit status 3", "by hand"},
		{"no QEMU", program(t, "echo hello >&3; exec sleep 1000"), "does not answer as QEMU does", "by hand"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := testProber(t).Host(t.Context(), tt.binary)
			var broken *BinaryError
			if !errors.As(err, &broken) || broken.Binary != tt.binary {
				t.Fatalf("error is %v, want a *BinaryError of %s", err, tt.binary)
			}
			if !strings.Contains(err.Error(), tt.says) || !strings.Contains(broken.Hint, tt.hint) {
				t.Errorf("error is %q, want %q and a hint with %q", err, tt.says, tt.hint)
			}
		})
	}
}

func TestProber_hangingBinary_isGivenUpAndKilled(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	path := program(t, "echo $$ > "+pidFile+"\nexec sleep 1000")
	p := testProber(t)
	p.times.Probe = 2 * time.Second // time enough for a busy machine to start the script
	_, err := p.Host(t.Context(), path)
	var broken *BinaryError
	if !errors.As(err, &broken) || !strings.Contains(broken.Msg, "did not answer in time") {
		t.Errorf("error is %v", err)
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the scratch process is still there: %v", err)
	}
}

func TestProber_cancelled_saysSo(t *testing.T) {
	path := program(t, "exec sleep 1000")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err := testProber(t).Host(ctx, path)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestProber_oldQEMU_isRefused(t *testing.T) {
	p := testProber(t)
	old := testHost()
	old.Version = driver.Version{Major: 7, Minor: 1, Micro: 9}
	_, err := p.Host(t.Context(), fakeHost(t, p, old))
	var broken *BinaryError
	if !errors.As(err, &broken) || !strings.Contains(err.Error(), "7.1.9") || !strings.Contains(err.Error(), "7.2 or newer") {
		t.Errorf("error is %v", err)
	}
}

func TestAccelerator_works_isAskedOncePerBoot(t *testing.T) {
	path, count := countedQEMU(t)
	p := testProber(t)
	host, err := p.Host(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	before := count()
	for range 2 {
		if err := p.Accelerator(t.Context(), host, "tcg"); err != nil {
			t.Fatal(err)
		}
	}
	other := NewProber(p.layout, p.times, filelock.New())
	if err := other.Accelerator(t.Context(), host, "tcg"); err != nil || count() != before+1 {
		t.Errorf("another process: error %v, %d runs", err, count()-before)
	}
	// A device of KVM that changed may change everything.
	other.kvm = filepath.Join(t.TempDir(), "none")
	other.works = map[string]string{}
	if err := other.Accelerator(t.Context(), host, "tcg"); err != nil || count() != before+2 {
		t.Errorf("after a change: error %v, %d runs", err, count()-before)
	}
}

func TestAccelerator_notCompiledIn_isAProblem(t *testing.T) {
	err := testProber(t).Accelerator(t.Context(), testHost(), "xen")
	var problem *AccelProblem
	if !errors.As(err, &problem) || !strings.Contains(problem.Msg, "built without") || !strings.Contains(problem.Hint, "kvm and tcg") {
		t.Errorf("error is %v", err)
	}
}

func TestAccelerator_doesNotInitialise_isNotRemembered(t *testing.T) {
	p := testProber(t)
	p.kvm = "/dev/null" // opens, so that QEMU itself is asked
	switchFile := filepath.Join(t.TempDir(), "works")
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
	// The fault is QEMU's until the file is there; then tcg stands in for kvm.
	path := program(t, fmt.Sprintf(`if [ ! -e %s ]; then echo 'failed to initialize kvm: Device or resource busy' >&2; exit 1; fi
for a; do shift; [ "$a" = kvm ] && a=tcg; set -- "$@" "$a"; done
exec %s "$@"`, switchFile, qemu))
	host := testHost()
	host.Binary = path
	err = p.Accelerator(t.Context(), host, "kvm")
	var problem *AccelProblem
	if !errors.As(err, &problem) || !strings.Contains(problem.Msg, "does not initialise") || !strings.Contains(problem.Msg, "resource busy") || !strings.Contains(problem.Hint, "[kvm, tcg]") {
		t.Fatalf("error is %v", err)
	}
	if err := os.WriteFile(switchFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Accelerator(t.Context(), host, "kvm"); err != nil {
		t.Errorf("after the fault passed: %v", err)
	}
}

func TestKVMRefusal_eachCause_hasWordsAndARemedy(t *testing.T) {
	tests := []struct {
		err        error
		says, hint string
	}{
		{unix.ENOENT, "does not exist", "modprobe"},
		{unix.EACCES, "no permission", "usermod -aG"},
		{unix.EPERM, "no permission", "usermod -aG"},
		{unix.ENODEV, "no such device", "modprobe"},
		{unix.ENXIO, "no such device", "modprobe"},
		{unix.EBUSY, "device or resource busy", "check the device"},
	}
	for _, tt := range tests {
		got := kvmRefusal("/dev/kvm", tt.err)
		if !strings.Contains(got.Msg, tt.says) || !strings.Contains(got.Hint, tt.hint) || !strings.Contains(got.Hint, "[kvm, tcg]") {
			t.Errorf("%v: %q and %q, want %q and %q", tt.err, got.Msg, got.Hint, tt.says, tt.hint)
		}
	}
	if got := kvmProblem(filepath.Join(t.TempDir(), "kvm")); got == nil || !strings.Contains(got.Msg, "does not exist") {
		t.Errorf("a missing device: %v", got)
	}
	if got := kvmProblem("/dev/null"); got != nil {
		t.Errorf("a device that opens: %v", got)
	}
}

// BenchmarkCheck_warm is what each apply pays for one machine.
func BenchmarkCheck_warm(b *testing.B) {
	realHost(b)
	p := testProber(b)
	vm := testVM("web", manifest.VirtualMachineSpec{
		Emulator: &manifest.Emulator{Accelerators: []string{"tcg"}},
		Machine:  q35(),
		Disks:    []manifest.Disk{sized("root")},
		NICs:     []manifest.NIC{userNIC("lan")},
	})
	for b.Loop() {
		if _, findings, err := p.Check(b.Context(), vm); err != nil || len(findings) != 0 {
			b.Fatal(err, findings)
		}
	}
}

// BenchmarkProber_warm is what each command pays for a binary that was asked
// before: in this process, and by another one.
func BenchmarkProber_warm(b *testing.B) {
	host := realHost(b)
	p := testProber(b)
	if _, err := p.Host(b.Context(), host.Binary); err != nil {
		b.Fatal(err)
	}
	b.Run("process", func(b *testing.B) {
		for b.Loop() {
			if _, err := p.Host(b.Context(), "qemu-system-x86_64"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("disk", func(b *testing.B) {
		for b.Loop() {
			if _, err := NewProber(p.layout, p.times, p.locks).Host(b.Context(), "qemu-system-x86_64"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
