package qemu

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

func withTPM(s *manifest.VirtualMachineSpec) { s.TPM = &manifest.TPM{} }

func needSWTPM(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath(swtpmBinary); err != nil {
		t.Skip("the package swtpm is not installed")
	}
}

// swtpm is the process that is the TPM of the machine web; 0 when there is none.
func (r *rig) swtpm() int {
	r.t.Helper()
	pid, err := tpmHolder(r.layout.TPM("web"))
	r.must(err)
	return pid
}

// awaitSWTPM waits until the machine web has a swtpm, or none.
func (r *rig) awaitSWTPM(there bool) int {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), realTimeout)
	defer cancel()
	for {
		if pid := r.swtpm(); (pid != 0) == there {
			return pid
		}
		if err := pause(ctx, firstTry); err != nil {
			r.t.Fatalf("swtpm there is %v, want %v", !there, there)
		}
	}
}

func TestTPM_guest_keepsWhatItsTPMHolds(t *testing.T) {
	needSWTPM(t)
	if testing.Short() {
		t.Skip("boots a guest")
	}
	r := newRig(t)
	vm := r.vm("web", tinyGuest(t, ""), withTPM, func(s *manifest.VirtualMachineSpec) { s.Disks = []manifest.Disk{sized("root")} })
	r.start(vm, false)
	if version := r.shell().must("cat /sys/class/tpm/tpm0/tpm_version_major"); version != "2\n" {
		t.Errorf("the TPM's version is %q", version)
	}
	o := r.observe(vm, driver.DepthFull, driver.Alive)
	if o.Guest.TPM != "tpm-tis" || o.TPMLost || len(o.Guest.Devices) != 0 {
		t.Errorf("the TPM is %q, lost %v; devices %+v", o.Guest.TPM, o.TPMLost, o.Guest.Devices)
	}
	// A snapshot with memory holds the TPM's state, too.
	intent := driver.SnapshotIntent{Tag: "full", Method: manifest.SnapshotFull, Job: "maqet-snapshot-test"}
	r.must(r.TakeSnapshot(t.Context(), vm, o, intent))
	r.must(r.Await(t.Context(), "web", vm, driver.Awaited{Job: true}))
	r.must(r.FinishSnapshot(t.Context(), vm, r.observe(vm, driver.DepthFull, driver.Alive), intent))
	state := filepath.Join(r.layout.TPM("web"), "tpm2-00.permall")
	before, err := os.ReadFile(state)
	r.must(err)
	if info, err := os.Stat(state); err != nil || info.Mode() != 0o600 {
		t.Errorf("the state's mode is %v, error %v", info.Mode(), err)
	}
	r.end()
	r.awaitSWTPM(false)
	r.start(vm, true)
	after, err := os.ReadFile(state)
	r.must(err)
	if string(before) != string(after) {
		t.Error("a second start has made another TPM")
	}
	r.end()
	// Disks alone go back without it, which is told.
	report, err := r.RestoreSnapshot(t.Context(), vm, r.observe(vm, driver.DepthFull, driver.Absent), "full")
	r.must(err)
	if !strings.Contains(report.Note, "the TPM's state") {
		t.Errorf("the note is %q", report.Note)
	}
}

// TestTPM_endOfQEMU_endsSWTPM ends QEMU in the hardest way, and starts it again at once.
func TestTPM_endOfQEMU_endsSWTPM(t *testing.T) {
	needSWTPM(t)
	r := newRig(t)
	vm := r.vm("web", withTPM)
	for range 3 {
		r.start(vm, true)
		if r.observe(vm, driver.DepthFull, driver.Alive).TPMLost {
			t.Error("a machine that was just started has lost its TPM")
		}
		pid := r.awaitSWTPM(true)
		if sid, err := unix.Getsid(pid); err != nil || sid != pid {
			t.Errorf("the session of swtpm %d is %d, error %v", pid, sid, err)
		}
		r.end()
	}
	r.awaitSWTPM(false)
}

// TestTPM_whatSWTPMSaysLast_isNotTakenForQEMUs ends QEMU, upon which swtpm may say that
// its client is gone.
func TestTPM_whatSWTPMSaysLast_isNotTakenForQEMUs(t *testing.T) {
	needSWTPM(t)
	r := newRig(t)
	vm := r.vm("web", withTPM)
	for _, c := range []struct {
		sig         unix.Signal
		cause       driver.EndCause
		last, swtpm string
	}{
		{unix.SIGTERM, driver.EndSignal, signalWords, ""},
		{unix.SIGKILL, driver.EndCrash, "", "swtpm: "},
	} {
		r.start(vm, true)
		r.awaitSWTPM(true)
		r.signal("web", c.sig)
		r.waitEnd("web")
		r.awaitSWTPM(false)
		if text, err := os.ReadFile(r.layout.QEMULog("web")); err != nil || !strings.Contains(string(text), c.swtpm) {
			t.Errorf("%s: swtpm has said nothing in %q, error %v", unix.SignalName(c.sig), text, err)
		}
		e := r.observe(vm, driver.DepthFull, driver.Absent).Ended
		if e.Cause != c.cause || !strings.Contains(e.LastLine, c.last) || c.last == "" && e.LastLine != "" {
			t.Errorf("%s: ended by %s, and said %q", unix.SignalName(c.sig), e.Cause, e.LastLine)
		}
		r.must(r.ClearRun(t.Context(), "web"))
	}
}

func TestTPM_swtpmKilled_isNoticedAndTheGuestRunsOn(t *testing.T) {
	needSWTPM(t)
	r := newRig(t)
	vm := r.vm("web", withTPM)
	r.start(vm, true)
	pid := r.awaitSWTPM(true)
	r.must(unix.Kill(pid, unix.SIGKILL))
	r.awaitSWTPM(false)
	if o := r.observe(vm, driver.DepthFull, driver.Alive); !o.TPMLost {
		t.Errorf("lost is %v", o.TPMLost)
	}
}

func TestTPM_stateInUse_isToldWithTheProcess(t *testing.T) {
	needSWTPM(t)
	r := newRig(t)
	vm := r.vm("web", withTPM)
	r.start(vm, true)
	pid := r.awaitSWTPM(true)
	r.must(unix.Kill(pid, unix.SIGSTOP))
	r.end()
	ctx, cancel := context.WithTimeout(t.Context(), realTimeout)
	defer cancel()
	r.timing.Quit = 10 * firstTry
	_, err := r.Start(ctx, driver.StartRequest{VM: vm, Paused: true})
	if err == nil || !strings.Contains(err.Error(), "in use by process") {
		t.Errorf("error is %v", err)
	}
	r.must(unix.Kill(pid, unix.SIGCONT))
	r.awaitSWTPM(false)
	r.start(vm, true)
}

func TestTPM_noSWTPM_isFoundBeforeAnythingIsMade(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", withTPM)
	host, err := r.prober.Host(t.Context(), "")
	r.must(err)
	bin := t.TempDir()
	r.must(os.Symlink(host.Binary, filepath.Join(bin, filepath.Base(host.Binary))))
	t.Setenv("PATH", bin)
	_, err = r.Start(t.Context(), driver.StartRequest{VM: vm})
	var spec *SpecError
	if !errors.As(err, &spec) || spec.Path != "spec.tpm" || !strings.Contains(spec.Hint, "install the package swtpm") {
		t.Errorf("error is %v", err)
	}
	if _, err := os.Stat(r.layout.TPM("web")); err == nil {
		t.Error("a folder was made")
	}
	_, findings, err := r.prober.Check(t.Context(), vm)
	if err != nil || len(findings) != 1 || findings[0].Path != "spec.tpm" {
		t.Errorf("findings %+v, error %v", findings, err)
	}
	isa := r.vm("web", withTPM, func(s *manifest.VirtualMachineSpec) { s.Machine = &manifest.Machine{Type: "microvm"} })
	if _, findings, err := r.prober.Check(t.Context(), isa); err != nil || len(findings) != 2 {
		t.Errorf("on microvm: findings %+v, error %v", findings, err)
	}
}

// TestTPM_commaInTheStateDir_isPartOfItsName has a state dir whose name would be two
// options of swtpm's.
func TestTPM_commaInTheStateDir_isPartOfItsName(t *testing.T) {
	needSWTPM(t)
	r := newRig(t)
	l := r.layout
	l.State += ",mode=0666"
	r = rigAt(t, l)
	r.start(r.vm("web", withTPM), true)
	r.awaitSWTPM(true)
	state := filepath.Join(r.layout.TPM("web"), "tpm2-00.permall")
	if info, err := os.Stat(state); err != nil || info.Mode() != 0o600 {
		t.Errorf("the TPM's state: %v, %v", info, err)
	}
	r.end()
	r.awaitSWTPM(false)
}
