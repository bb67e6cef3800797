package manifest

import (
	"encoding/json"
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestResolve_twice_changesNothingMore(t *testing.T) {
	vm := fullMachine()
	once := Resolve(vm, "/srv/vms")
	twice := Resolve(once, "/elsewhere")
	if diff := cmp.Diff(once, twice, cmp.AllowUnexported(Scalar{})); diff != "" {
		t.Errorf("-once +twice:\n%s", diff)
	}
}

// TestDeepCopy_everyPointer_isItsOwn fails when a field is added to the types
// whose copy is shared.
func TestDeepCopy_everyPointer_isItsOwn(t *testing.T) {
	vm := fullMachine()
	checkApart(t, "vm", reflect.ValueOf(vm), reflect.ValueOf(vm.DeepCopy()))
	snap := &Snapshot{}
	snap.Metadata = vm.Metadata
	checkApart(t, "snapshot", reflect.ValueOf(snap), reflect.ValueOf(snap.DeepCopy()))
}

func checkApart(t *testing.T, path string, a, b reflect.Value) {
	t.Helper()
	//nolint:exhaustive // the other kinds share nothing.
	switch a.Kind() {
	case reflect.Pointer:
		if a.IsNil() {
			t.Errorf("%s is nil: the machine of this test must fill every field", path)
		} else if a.Pointer() == b.Pointer() && a.Type().Elem().Size() > 0 {
			// Pointers to nothing may be equal, and nothing can be changed through them.
			t.Errorf("%s is shared", path)
		} else {
			checkApart(t, path, a.Elem(), b.Elem())
		}
	case reflect.Slice, reflect.Map:
		if a.Len() == 0 {
			t.Errorf("%s is empty: the machine of this test must fill every field", path)
		} else if a.Pointer() == b.Pointer() {
			t.Errorf("%s is shared", path)
		}
		if a.Kind() == reflect.Slice {
			for i := range a.Len() {
				checkApart(t, path+"[]", a.Index(i), b.Index(i))
			}
		}
	case reflect.Struct:
		for i := range a.NumField() {
			checkApart(t, path+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))
		}
	}
}

// fullMachine has every pointer, list and map filled; it need not be valid.
func fullMachine() *VirtualMachine {
	properties := map[string]Scalar{"a": ScalarOf(1)}
	return &VirtualMachine{
		APIVersion: APIVersion, Kind: KindVirtualMachine,
		Metadata: Metadata{Name: "a", Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"a": "b"}},
		Spec: VirtualMachineSpec{
			Emulator: &Emulator{Accelerators: []string{"tcg"}, ExtraArgs: []string{"-rtc"}},
			Machine:  &Machine{Type: "q35", Properties: properties},
			Firmware: &Firmware{},
			CPU:      &CPU{Topology: &Topology{Cores: 2}},
			Memory:   &Memory{Size: 1 << 20},
			Boot:     &Boot{Order: []string{"d"}, Kernel: &Kernel{Image: "k", Initrd: "../i"}},
			Disks: []Disk{
				{Name: "d", File: "d.raw", Format: FormatRaw, NBD: &NBD{Unix: "s"}, Throttle: &Throttle{IOPS: 1}},
				{Name: "cd", File: "x.iso", Media: MediaCDROM, NBD: &NBD{Host: "h"}, Throttle: &Throttle{BPS: 1}},
			},
			NICs: []NIC{{
				Name: "n", MAC: "52:54:00:00:00:AA",
				User: &UserNet{Forward: []string{"tcp::1:1"}}, Bridge: &BridgeNet{Name: "br0"},
			}},
			CloudInit: &CloudInit{UserDataFile: "u", SSHAuthorizedKeys: []string{"k"}},
			Serial:    &Serial{Log: true},
			TPM:       &TPM{}, Watchdog: &Watchdog{},
			Devices:    []Device{{Name: "x", Driver: "y", Properties: properties}},
			GuestAgent: &GuestAgent{},
			Shutdown:   &Shutdown{Methods: []ShutdownMethod{ShutdownACPI}},
			Readiness:  &Readiness{Serial: &SerialReadiness{Match: "x"}, TCP: &TCPReadiness{Port: 1}, GuestAgent: &AgentReadiness{}},
			Snapshots:  &Snapshots{Schedule: "@daily", TimeZone: "UTC", Method: SnapshotDisk, Quiesce: QuiesceRequired, Keep: &Keep{Last: 1, Hourly: 1, Daily: 1, Weekly: 1, Monthly: 1}},
			Backup: &Backup{
				Schedule: "@daily", TimeZone: "UTC", Target: "/t", Mode: BackupFull, Quiesce: QuiesceNever, RateLimit: 1 << 20, Keep: &Keep{Last: 1, Hourly: 1, Daily: 1, Weekly: 1, Monthly: 1},
			},
			OnDelete: &OnDelete{},
		},
	}
}

func TestPathsOf_kinds_listsEveryLeaf(t *testing.T) {
	want := []string{
		"apiVersion", "kind", "metadata.annotations", "metadata.labels", "metadata.name",
		"spec.deadline", "spec.method", "spec.onDelete", "spec.quiesce", "spec.virtualMachine",
	}
	if diff := cmp.Diff(want, PathsOf(reflect.TypeFor[Snapshot]())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	got := strings.Join(PathsOf(reflect.TypeFor[*VirtualMachine]()), " ")
	for _, path := range []string{
		"spec.boot.kernel.cmdline", "spec.boot.order", "spec.cpu.topology.cores", "spec.devices[].properties", "spec.disks[].format",
		"spec.emulator.extraArgs", "spec.memory.size", "spec.nics[].bridge.name", "spec.nics[].user.forward", "spec.readiness.tcp.port", "spec.shutdown.methods",
	} {
		if !strings.Contains(got, path) {
			t.Errorf("%s is missing in %s", path, got)
		}
	}
}

func TestParseForward_goodText_readsAndWritesTheSame(t *testing.T) {
	for text, want := range map[string]Forward{
		"tcp:127.0.0.1:2222:22": {"tcp", "127.0.0.1", 2222, 22},
		"udp::53:53":            {"udp", "", 53, 53},
		"tcp:0.0.0.0:65535:1":   {"tcp", "0.0.0.0", 65535, 1},
	} {
		got, err := ParseForward(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
}

func TestValidName_bounds(t *testing.T) {
	for name, ok := range map[string]bool{"a": true, "1": true, "a-1": true, strings.Repeat("a", 63): true, "": false, "-a": false, "a-": false, "A": false, "a.b": false, "a\n": false, strings.Repeat("a", 64): false} {
		if err := ValidName(name); (err == nil) != ok {
			t.Errorf("ValidName(%q) = %v", name, err)
		}
	}
	for name, ok := range map[string]bool{"a": true, "a1": true, strings.Repeat("a", 24): true, "1a": false, "": false, "a-": false, strings.Repeat("a", 25): false} {
		if err := ValidDeviceName(name); (err == nil) != ok {
			t.Errorf("ValidDeviceName(%q) = %v", name, err)
		}
	}
}

func TestQuantity_anyNumberOfBytes_readsBackTheSame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		q := Quantity(rapid.Int64Range(0, 1<<63-1).Draw(rt, "bytes"))
		if rapid.Bool().Draw(rt, "round") {
			q = q >> 40 << 40
		}
		got, err := ParseQuantity(q.String())
		if err != nil || got != q {
			rt.Fatalf("%d became %s became %d, %v", q, q, got, err)
		}
	})
}

func TestParseQuantity_units(t *testing.T) {
	for text, want := range map[string]Quantity{
		"0": 0, "512": 512, "1k": 1000, "1Ki": 1024, "2M": 2e6, "2Mi": 2 << 20, "3G": 3e9, "3Gi": 3 << 30, "1T": 1e12, "1Ti": 1 << 40, "1P": 1e15, "1Pi": 1 << 50,
		"9223372036854775807": 1<<63 - 1,
	} {
		if got, err := ParseQuantity(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v", text, got, err)
		}
	}
}

func TestErrors_asAProgramSeesThem(t *testing.T) {
	cause := fs.ErrPermission
	faults := Errors{
		{Position: Position{"b.yaml", 2, 1}, Path: "spec", Msg: "m", Hint: "h"},
		{Position: Position{File: "a.yaml"}, Msg: "cannot be read", Err: cause},
		{Position: Position{"b.yaml", 1, 9}, Msg: "w", Warning: true},
	}
	faults.Sort()
	got, err := json.Marshal(faults)
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"severity":"error","file":"a.yaml","message":"cannot be read: permission denied"},` +
		`{"severity":"warning","file":"b.yaml","line":1,"column":9,"message":"w"},` +
		`{"severity":"error","file":"b.yaml","line":2,"column":1,"path":"spec","message":"m","hint":"h"}]`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	var one *Error
	if !errors.Is(faults, cause) || !errors.As(faults, &one) {
		t.Error("the cause is not to be found")
	}
	if refusals, warnings := faults.Split(); len(refusals) != 2 || len(warnings) != 1 {
		t.Errorf("refusals %v, warnings %v", refusals, warnings)
	}
}

func TestNewObject_storedMachine_hasTheDigestOfTheLoaded(t *testing.T) {
	loaded := objectsOf(t, vmText("a", "memory: {size: 1024Mi}", `nics: [{name: lan, mac: "52:54:00:00:00:AB", user: {forward: ["tcp::1:1"]}}]`))[0]
	stored, err := NewObject(loaded.VM.DeepCopy())
	if err != nil || stored.Digest != loaded.Digest || stored.Key().String() != "vm/a" {
		t.Fatalf("%+v, %v", stored, err)
	}
	other := objectsOf(t, vmText("b", `nics: [{name: lan, user: {forward: ["tcp:127.0.0.1:1:1"]}}]`))
	got := Admit(other, []*Object{stored}, HostFacts{}).Error()
	if !strings.Contains(got, "of vm/a (running, but declared in no manifest)") {
		t.Errorf("got %s", got)
	}
	if _, err := NewObject(vmNamed); err == nil {
		t.Error("a function became an object")
	}
}

func TestSet_lookup_findsByKindAndName(t *testing.T) {
	set, err := assemble(listing{sources: []source{{name: "x"}}}, []fileResult{{objects: objectsOf(t,
		vmText("b", "serial: {}")+vmText("a", "serial: {}")+snapText("a", "b"))}})
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, o := range set.Objects {
		keys = append(keys, o.Key().String())
	}
	if diff := cmp.Diff([]string{"vm/a", "vm/b", "snap/a"}, keys); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if set.VM("b") == nil || set.VM("c") != nil || set.Lookup(ObjectKey{KindSnapshot, "a"}) == nil || len(set.Snapshots()) != 1 || len(set.VMs()) != 2 {
		t.Error("lookup fails")
	}
}

func TestLoad_otherArchitecture_needsABoard(t *testing.T) {
	src := source{name: "a.yaml", dir: "/"}
	const want = "spec.machine.type: required key is missing: QEMU has no default board for aarch64"
	for text, refused := range map[string]bool{
		vmText("a", "serial: {}"):                                      true,
		vmText("a", "machine: {type: virt, hotplugPorts: 2}"):          false,
		vmText("a", "emulator: {binary: /usr/bin/qemu-system-x86_64}"): false,
	} {
		got := loadFile(src, []byte(text), nil, "aarch64", newShapes()).faults.Error()
		if strings.Contains(got, want) != refused || (got != "") != refused {
			t.Errorf("%s\ngot %s", text, got)
		}
	}
}

func TestNBD_anyExport_readsBackFromItsURI(t *testing.T) {
	for uri, want := range map[string]NBD{
		"nbd+unix://?socket=/run/a.sock":         {Unix: "/run/a.sock"},
		"nbd+unix:///a/b?socket=/run/x?socket=y": {Unix: "/run/x?socket=y", Export: "a/b"},
		"nbd://10.0.0.1:10809":                   {Host: "10.0.0.1", Port: 10809},
		"nbd://::1:1/a:b/c":                      {Host: "::1", Port: 1, Export: "a:b/c"},
	} {
		got, ok := ParseNBDURI(uri)
		if !ok || got != want || want.URI() != uri {
			t.Errorf("%s: read %+v, %v; written %s", uri, got, ok, want.URI())
		}
	}
	for _, text := range []string{"", "/srv/x.raw", "nbd://host", "nbd://host:port", "nbd+unix:///x", "json:{}"} {
		if got, ok := ParseNBDURI(text); ok {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}
