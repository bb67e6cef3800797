package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// seeded is a machine with user-data.
func seeded(userData string) func(*manifest.VirtualMachineSpec) {
	return func(s *manifest.VirtualMachineSpec) { s.CloudInit = &manifest.CloudInit{UserData: userData} }
}

// networked adds a network configuration to cloudInit.
func networked(s *manifest.VirtualMachineSpec) {
	network, err := manifest.FreeOf(map[string]any{"version": 2})
	if err != nil {
		panic(err)
	}
	s.CloudInit.NetworkConfig = network
}

// readSeedImage is what is in the seed of the machine web.
func (r *rig) readSeedImage() map[string]string {
	r.t.Helper()
	image, err := os.Open(r.layout.Seed("web"))
	r.must(err)
	defer func() { _ = image.Close() }()
	info, err := image.Stat()
	r.must(err)
	fsys, err := iso9660.Read(file.New(image, true), info.Size(), 0, 0)
	r.must(err)
	entries, err := fsys.ReadDir(".")
	r.must(err)
	out := map[string]string{}
	for _, e := range entries {
		text, err := fsys.ReadFile(e.Name())
		r.must(err)
		out[e.Name()] = string(text)
	}
	return out
}

// instanceInSeed is the instance-id that a guest reads.
func (r *rig) instanceInSeed() string {
	r.t.Helper()
	var meta struct {
		Instance string `json:"instance-id"`
	}
	r.must(json.Unmarshal([]byte(r.readSeedImage()[metaDataName]), &meta))
	return meta.Instance
}

// end ends the machine web and clears what it left.
func (r *rig) end() {
	r.t.Helper()
	r.signal("web", unix.SIGKILL)
	r.waitEnd("web")
	r.must(r.ClearRun(r.t.Context(), "web"))
}

func TestSeedFiles_everyKey_isWhereCloudInitReadsIt(t *testing.T) {
	network, err := manifest.FreeOf(map[string]any{"version": 2, "ethernets": map[string]any{"eth0": map[string]any{"dhcp4": true, "match": "a<b"}}})
	if err != nil {
		t.Fatal(err)
	}
	meta, err := manifest.FreeOf(map[string]any{"local-hostname": "web.example.org", "n": 1.5})
	if err != nil {
		t.Fatal(err)
	}
	vm := testVM("web", manifest.VirtualMachineSpec{CloudInit: &manifest.CloudInit{
		UserData: "#!/bin/sh\n", MetaData: meta, NetworkConfig: network, SSHAuthorizedKeys: []string{"ssh-ed25519 AAAA me"},
	}})
	got, err := seedFiles(t.Context(), nil, vm, "i-1")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{
		userDataName: []byte("#!/bin/sh\n"),
		metaDataName: []byte(`{
  "instance-id": "i-1",
  "local-hostname": "web.example.org",
  "n": 1.5,
  "public-keys": [
    "ssh-ed25519 AAAA me"
  ]
}
`),
		networkConfigName: []byte(`{
  "ethernets": {
    "eth0": {
      "dhcp4": true,
      "match": "a<b"
    }
  },
  "version": 2
}
`),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	bare, err := seedFiles(t.Context(), nil, testVM("web", manifest.VirtualMachineSpec{CloudInit: &manifest.CloudInit{}}), "i-1")
	if err != nil {
		t.Fatal(err)
	}
	// cloud-init wants both files, if only empty ones, and decides about the network itself.
	want = map[string][]byte{userDataName: nil, metaDataName: []byte("{\n  \"instance-id\": \"i-1\",\n  \"local-hostname\": \"web\"\n}\n")}
	if diff := cmp.Diff(want, bare); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestSeed_dataChanges_areDriftUntilProvisioned(t *testing.T) {
	r := newRig(t)
	const first, second = "#cloud-config\nhostname: one\n", "#cloud-config\nhostname: two\n"
	vm := r.vm("web", seeded(first))
	r.start(vm, true)
	o := r.observe(vm, driver.DepthFull, driver.Alive)
	uid := o.Identity.UID
	if s := o.Seed; !s.Provisioned() || s.Drifted() || s.Renewing() || s.Instance != uid || r.instanceInSeed() != uid {
		t.Fatalf("after the first start the seed is %+v", s)
	}
	if brief := r.observe(vm, driver.DepthBrief, driver.Alive); !brief.Seed.Provisioned() {
		t.Errorf("a brief look says that the seed is %+v", brief.Seed)
	}
	if len(o.Guest.Disks) != 0 || len(o.Guest.Devices) != 0 {
		t.Errorf("the seed counts as the manifest's: %+v, %+v", o.Guest.Disks, o.Guest.Devices)
	}
	for _, path := range []string{r.layout.Seed("web"), r.layout.SeedRecord("web")} {
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has the mode %v, error %v", path, info.Mode(), err)
		}
	}

	changed := r.vm("web", seeded(second))
	if s := r.observe(changed, driver.DepthFull, driver.Alive).Seed; !s.Drifted() {
		t.Errorf("other data are no drift: %+v", s)
	}
	r.end()
	// A start alone never brings other data to a guest.
	r.start(changed, true)
	if s := r.observe(changed, driver.DepthFull, driver.Alive).Seed; !s.Drifted() || r.readSeedImage()[userDataName] != first {
		t.Errorf("the seed is %+v and holds %q", s, r.readSeedImage()[userDataName])
	}

	for range 2 { // the second time changes nothing more
		if instance, err := r.Reprovision(t.Context(), changed); err != nil || instance != uid+"-1" {
			t.Fatalf("Reprovision gave %q, error %v", instance, err)
		}
	}
	if s := r.observe(changed, driver.DepthFull, driver.Alive).Seed; s.Drifted() || !s.Renewing() || s.Next != uid+"-1" || r.instanceInSeed() != uid {
		t.Errorf("before the restart the seed is %+v", s)
	}
	r.end()
	r.start(changed, true)
	s := r.observe(changed, driver.DepthFull, driver.Alive).Seed
	if s.Drifted() || s.Renewing() || s.Instance != uid+"-1" || r.instanceInSeed() != uid+"-1" || r.readSeedImage()[userDataName] != second {
		t.Errorf("after the restart the seed is %+v and holds %v", s, r.readSeedImage())
	}
}

func TestSeed_startFails_nothingCountsAsProvisioned(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", seeded("#cloud-config\nhostname: one\n"), func(s *manifest.VirtualMachineSpec) {
		s.Emulator.ExtraArgs = []string{"-device", "no-such-device"}
	})
	if err := r.tryStart(vm, true); err == nil {
		t.Fatal("it started")
	}
	if s := r.observe(vm, driver.DepthFull, driver.Absent).Seed; s.Provisioned() {
		t.Errorf("the seed is %+v", s)
	}
	// Corrected, the machine is provisioned with what its manifest says then.
	vm = r.vm("web", seeded("#cloud-config\nhostname: two\n"))
	r.start(vm, true)
	if got := r.readSeedImage()[userDataName]; got != "#cloud-config\nhostname: two\n" {
		t.Errorf("the guest reads %q", got)
	}
}

func TestSeed_imageLost_isMadeAgainForTheSameInstance(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", seeded("#cloud-config\nhostname: one\n"))
	r.start(vm, true)
	r.end()
	r.must(os.Remove(r.layout.Seed("web")))
	changed := r.vm("web", seeded("#cloud-config\nhostname: two\n"))
	r.start(changed, true)
	o := r.observe(changed, driver.DepthFull, driver.Alive)
	// What the guest was provisioned with has not changed by that.
	if !o.Seed.Drifted() || r.instanceInSeed() != o.Identity.UID {
		t.Errorf("the seed is %+v, its instance %s", o.Seed, r.instanceInSeed())
	}
}

func TestAcceptSeed_drift_endsWithoutProvisioning(t *testing.T) {
	r := newRig(t)
	r.start(r.vm("web", seeded("#cloud-config\nhostname: one\n")), true)
	changed := r.vm("web", seeded("#cloud-config\nhostname: two\n"))
	_, err := r.Reprovision(t.Context(), changed)
	r.must(err)
	r.must(r.AcceptSeed(t.Context(), changed))
	if s := r.observe(changed, driver.DepthFull, driver.Alive).Seed; s.Drifted() || s.Renewing() {
		t.Errorf("the seed is %+v", s)
	}
	r.end()
	r.start(changed, true)
	o := r.observe(changed, driver.DepthFull, driver.Alive)
	if o.Seed.Drifted() || r.instanceInSeed() != o.Identity.UID || r.readSeedImage()[userDataName] != "#cloud-config\nhostname: two\n" {
		t.Errorf("the seed is %+v and holds %v", o.Seed, r.readSeedImage())
	}
}

func TestSeed_userDataFile(t *testing.T) {
	r := newRig(t)
	path := filepath.Join(t.TempDir(), "web.cloud-config")
	writeTestFile(t, path, []byte("#cloud-config\nhostname: one\n"))
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) { s.CloudInit = &manifest.CloudInit{UserDataFile: path} })
	r.start(vm, true)
	if got := r.readSeedImage()[userDataName]; got != "#cloud-config\nhostname: one\n" {
		t.Errorf("the guest reads %q", got)
	}
	writeTestFile(t, path, []byte("#cloud-config\nhostname: two\n"))
	if s := r.observe(vm, driver.DepthFull, driver.Alive).Seed; !s.Drifted() {
		t.Errorf("another content of the file is no drift: %+v", s)
	}
	r.end()
	r.must(os.Remove(path))
	// The guest has its seed, so the file is not needed for a start.
	r.start(vm, true)
	if s := r.observe(vm, driver.DepthFull, driver.Alive).Seed; s.Drifted() || !strings.Contains(s.Err, path) {
		t.Errorf("without the file the seed is %+v", s)
	}
	r.end()

	// For another instance it is, and it has to be one that cloud-init reads.
	_, err := r.Reprovision(t.Context(), vm)
	r.must(err)
	var spec *SpecError
	err = r.tryStart(vm, true)
	if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &spec) || spec.Path != "spec.cloudInit.userDataFile" {
		t.Errorf("error is %v", err)
	}
	writeTestFile(t, path, []byte("# cloud-config\nhostname: two\n"))
	if err := r.tryStart(vm, true); err == nil || !strings.Contains(err.Error(), path+":1:1") {
		t.Errorf("error is %v", err)
	}
	if files := r.runFiles(); len(files) > 0 {
		t.Errorf("the run dir still holds %v", files)
	}
}

func TestReprovision_beforeTheFirstStart_hasNothingToRenew(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", seeded("#cloud-config\n"))
	id, err := r.EnsureIdentity(t.Context(), vm)
	r.must(err)
	if instance, err := r.Reprovision(t.Context(), vm); err != nil || instance != id.UID {
		t.Errorf("Reprovision gave %q, error %v", instance, err)
	}
	r.must(r.AcceptSeed(t.Context(), vm))
	r.start(vm, true)
	if got := r.instanceInSeed(); got != id.UID {
		t.Errorf("the first instance is %s, want %s", got, id.UID)
	}
	var spec *SpecError
	if _, err := r.Reprovision(t.Context(), r.vm("web")); !errors.As(err, &spec) {
		t.Errorf("a machine without cloudInit: %v", err)
	}
}

// TestSeed_resumedGuest_isProvisionedLater starts a machine from a snapshot while a
// renewed instance-id waits for its next boot.
func TestSeed_resumedGuest_isProvisionedLater(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", seeded("#cloud-config\n"))
	r.start(vm, true)
	o := r.observe(vm, driver.DepthFull, driver.Alive)
	record := &driver.SnapshotRecord{Tag: "full", Launched: o.Launched}
	r.end()
	renewed, err := r.Reprovision(t.Context(), vm)
	r.must(err)
	for _, lost := range []bool{false, true} {
		if lost {
			r.must(os.Remove(r.layout.Seed("web")))
		}
		_, err = r.Start(t.Context(), driver.StartRequest{VM: vm, Paused: true, From: record})
		r.must(err)
		s := r.observe(vm, driver.DepthFull, driver.Alive).Seed
		if got := r.instanceInSeed(); got != o.Seed.Instance || !s.Renewing() || s.Next != renewed {
			t.Errorf("image lost %v: the resumed guest reads %s, and the seed is %+v", lost, got, s)
		}
		r.end()
	}
	r.start(vm, true)
	if got := r.instanceInSeed(); got != renewed {
		t.Errorf("at its next boot the guest reads %s, want %s", got, renewed)
	}
}

func TestSeed_secrets_areInNoLogAndNoCommandLine(t *testing.T) {
	r := newRig(t)
	log := r.logTo()
	const secret = "hunter2hunter2"
	path := filepath.Join(t.TempDir(), "web.cloud-config")
	writeTestFile(t, path, []byte("#cloud-config\npassword: "+secret+"\n"))
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) { s.CloudInit = &manifest.CloudInit{UserDataFile: path} })
	r.start(vm, true)
	o := r.observe(vm, driver.DepthFull, driver.Alive)
	record, err := os.ReadFile(r.layout.SeedRecord("web"))
	r.must(err)
	launched, err := os.ReadFile(r.layout.Launched("web"))
	r.must(err)
	cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(o.PID), "cmdline"))
	r.must(err)
	observed, err := json.Marshal(o)
	r.must(err)
	for what, text := range map[string]string{
		"log": log.String(), "seed record": string(record), "launch record": string(launched), "command line": string(cmdline), "observation": string(observed),
	} {
		if strings.Contains(text, secret) {
			t.Errorf("the user-data is in the %s", what)
		}
	}
	if entries, err := os.ReadDir(r.layout.Cache()); err == nil {
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "seed-") {
				t.Errorf("the user-data is left in %s", e.Name())
			}
		}
	}
}

func TestRender_realQEMU_seedIsReadOnlyAndReadBack(t *testing.T) {
	run := startReal(t, realInput(t, caseNamed(t, "cloud-init"), realHost(t)))
	var nodes []blockNode
	run.do(t, "query-named-block-nodes", map[string]any{"flat": true}, &nodes)
	found := false
	for _, n := range nodes {
		if n.NodeName == seedNode {
			found = true
			if !n.ReadOnly || filepath.Base(n.File) != "seed.iso" {
				t.Errorf("the seed's node is %+v", n)
			}
		}
	}
	if drive := run.property(t, "/machine/peripheral/"+seedDrive, "drive"); !found || drive != seedNode {
		t.Errorf("found %v, the drive has %v", found, drive)
	}
}

// TestSeed_firmware_bootsTheDisk holds that no firmware takes the seed for the disk
// to boot from.
func TestSeed_firmware_bootsTheDisk(t *testing.T) {
	const resetControl = 0xcf9
	for _, board := range []string{"q35", "pc"} {
		t.Run(board, func(t *testing.T) {
			r := newRig(t)
			vm := r.vm("web", seeded("#cloud-config\n"), func(s *manifest.VirtualMachineSpec) {
				s.Machine.Type = board
				s.Emulator.ExtraArgs = []string{"-no-reboot"}
				s.Disks = []manifest.Disk{{Name: "boot", File: bootSector(t, outByte(resetControl, 6)...), Format: manifest.FormatRaw}}
			})
			r.start(vm, false)
			ctx, cancel := context.WithTimeout(t.Context(), realTimeout)
			defer cancel()
			r.must(r.childOf("web").wait(ctx))
			if o := r.observe(vm, driver.DepthBrief, driver.Absent); o.Ended.Cause != driver.EndGuest {
				t.Errorf("ended by %s", o.Ended.Cause)
			}
		})
	}
}

// TestForget_seedCutOff_leavesNoSecrets has the tree of a seed that was being made when
// maqet was killed: user-data may hold secrets.
func TestForget_seedCutOff_leavesNoSecrets(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web")
	_, err := r.EnsureIdentity(t.Context(), vm)
	r.must(err)
	tree := filepath.Join(r.layout.SeedScratch("web"), "tree")
	r.must(os.MkdirAll(tree, 0o700))
	r.must(os.WriteFile(filepath.Join(tree, userDataName), []byte("password: x"), 0o600))
	_, err = r.Forget(t.Context(), "web", false)
	r.must(err)
	if _, err := os.Stat(r.layout.SeedScratch("web")); err == nil {
		t.Error("the seed's data are still there")
	}
}
