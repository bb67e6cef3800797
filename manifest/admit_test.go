package manifest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// objectsOf loads a text that is valid.
func objectsOf(t *testing.T, text string) []*Object {
	t.Helper()
	result := loadBytes([]byte(text))
	if err := result.faults.errorOrNil(); err != nil {
		t.Fatal(err)
	}
	return result.objects
}

// vmText is a machine with the given lines of its spec.
func vmText(name string, spec ...string) string {
	return "---\napiVersion: maqet.io/v1alpha1\nkind: VirtualMachine\nmetadata: {name: " + name + "}\nspec:\n  powerState: Running\n" +
		"  " + strings.Join(spec, "\n  ") + "\n"
}

func snapText(name, vm string) string {
	return "---\napiVersion: maqet.io/v1alpha1\nkind: Snapshot\nmetadata: {name: " + name + "}\nspec: {virtualMachine: " + vm + "}\n"
}

const admitHint = "give one of them another address, or none: maqet then makes one up and keeps it"

func TestAdmit_setWideConflicts_areToldWithBothPlaces(t *testing.T) {
	const (
		mac     = `nics: [{name: lan, user: {}, mac: "52:54:00:00:00:01"}]`
		macBig  = `nics: [{name: lan, user: {}, mac: "52:54:00:00:00:0A"}]`
		macTiny = `nics: [{name: lan, user: {}, mac: "52:54:00:00:00:0a"}]`
	)
	forward := func(f string) string { return `nics: [{name: lan, user: {forward: ["` + f + `"]}}]` }
	file := func(f, more string) string { return "disks: [{name: d, file: " + f + ", format: raw" + more + "}]" }
	tests := []struct {
		name   string
		text   string
		others string
		want   string
	}{
		{"nothing shared", vmText("a", mac) + vmText("b", forward("tcp::1:1")), "", ""},
		{
			"one MAC", vmText("a", mac) + vmText("b", mac), "",
			`fuzz.yaml:14:37: spec.nics[0].mac: MAC address 52:54:00:00:00:01 is taken by spec.nics[0].mac of vm/a (fuzz.yaml:7:37); ` + admitHint,
		},
		{
			"one MAC in two cases", vmText("a", macBig) + vmText("b", macTiny), "",
			`fuzz.yaml:14:37: spec.nics[0].mac: MAC address 52:54:00:00:00:0a is taken by spec.nics[0].mac of vm/a (fuzz.yaml:7:37); ` + admitHint,
		},
		{
			"one host port", vmText("a", forward("tcp:127.0.0.1:80:1")) + vmText("b", forward("tcp:127.0.0.1:80:2")), "",
			`fuzz.yaml:14:39: spec.nics[0].user.forward[0]: host port tcp 80 is taken by spec.nics[0].user.forward[0] of vm/a (fuzz.yaml:7:39); forward another port of the host`,
		},
		{
			"all addresses and one", vmText("a", forward("tcp::80:1")) + vmText("b", forward("tcp:127.0.0.1:80:2")), "",
			`fuzz.yaml:14:39: spec.nics[0].user.forward[0]: host port tcp 80 is taken by spec.nics[0].user.forward[0] of vm/a (fuzz.yaml:7:39); forward another port of the host`,
		},
		{"one port of two addresses", vmText("a", forward("tcp:127.0.0.1:80:1")) + vmText("b", forward("tcp:127.0.0.2:80:2")), "", ""},
		{"one port of two protocols", vmText("a", forward("tcp::80:1")) + vmText("b", forward("udp::80:2")), "", ""},
		{
			"one port in one machine", vmText("a", `nics: [{name: lan, user: {forward: ["tcp::80:1", "tcp::80:2"]}}]`), "",
			`fuzz.yaml:7:52: spec.nics[0].user.forward[1]: host port tcp 80 is taken by spec.nics[0].user.forward[0] of this machine (fuzz.yaml:7:39); forward another port of the host`,
		},
		{
			"one writable file, spelt twice", vmText("a", file("./x/../d.raw", "")) + vmText("b", file("/manifests/d.raw", "")), "",
			`fuzz.yaml:14:27: spec.disks[0].file: file "/manifests/d.raw" is taken by spec.disks[0].file of vm/a (fuzz.yaml:7:27); a file that a drive can write serves no other; make all of its drives readOnly: true, or copy the file`,
		},
		{
			"one writes and one reads", vmText("a", file("d.raw", ", readOnly: true")) + vmText("b", file("d.raw", "")), "",
			`fuzz.yaml:14:27: spec.disks[0].file: file "/manifests/d.raw" is taken by spec.disks[0].file of vm/a (fuzz.yaml:7:27); a file that a drive can write serves no other; make all of its drives readOnly: true, or copy the file`,
		},
		{"two read one file", vmText("a", file("d.raw", ", readOnly: true")) + vmText("b", file("d.raw", ", readOnly: true")), "", ""},
		{
			"snapshot of nothing", vmText("webb", "serial: {}") + snapText("s", "wbeb"), "",
			`fuzz.yaml:12:24: spec.virtualMachine: no virtual machine is named "wbeb"; did you mean "webb"?`,
		},
		{"snapshot of an undeclared machine", snapText("s", "web"), vmText("web", "serial: {}"), ""},
		{"undeclared machines that conflict already", vmText("a", "serial: {}"), vmText("old", mac) + vmText("older", mac), ""},
		{
			"undeclared machine holds a port", vmText("a", forward("tcp::80:1")), vmText("old", forward("tcp::80:1")),
			`fuzz.yaml:7:39: spec.nics[0].user.forward[0]: host port tcp 80 is taken by spec.nics[0].user.forward[0] of vm/old (fuzz.yaml:7:39); forward another port of the host`,
		},
		{"the running machine itself is declared", vmText("a", forward("tcp::80:1")), vmText("a", forward("tcp::80:1")), ""},
		{
			"one name", vmText("a", "serial: {}") + vmText("a", "serial: {}"), "",
			`fuzz.yaml:11:18: metadata.name: vm/a is declared a second time; the first is at fuzz.yaml:2:1; rename or remove one of them`,
		},
		{"one name of two kinds", vmText("a", "serial: {}") + snapText("a", "a"), "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Admit(objectsOf(t, tt.text), objectsOf(t, tt.others), HostFacts{})
			if diff := cmp.Diff(tt.want, got.Error()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestAdmit_moreThanTheHostHas_warns(t *testing.T) {
	text := vmText("a", "memory: {size: 1Gi}", "cpu: {count: 2}") + vmText("b", "serial: {}") +
		strings.Replace(vmText("c", "memory: {size: 64Gi}", "cpu: {count: 64}"), "Running", "Stopped", 1)
	tests := []struct {
		name string
		host HostFacts
		want string
	}{
		{"unknown host", HostFacts{}, ""},
		{"enough", HostFacts{MemoryBytes: 1152 << 20, CPUs: 3}, ""},
		{
			"too little memory",
			HostFacts{MemoryBytes: 1151 << 20, CPUs: 3},
			"spec.memory.size: the machines want 1152Mi of memory together, the host has 1151Mi; guests that use all of theirs may be killed for lack of memory; lower spec.memory.size or stop some",
		},
		{
			"too few processors",
			HostFacts{MemoryBytes: 1 << 40, CPUs: 2},
			"spec.cpu.count: the machines have 3 vCPUs together, the host has 2; they share the host's and run slower when busy at once",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Admit(objectsOf(t, text), nil, tt.host)
			if diff := cmp.Diff(tt.want, got.Error()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if refusals, _ := got.Split(); len(refusals) > 0 {
				t.Errorf("refused: %v", refusals)
			}
		})
	}
}

func TestAdmit_conflicts_nameTheObjectsInThem(t *testing.T) {
	mac := `nics: [{name: lan, user: {}, mac: "52:54:00:00:00:01"}]`
	vm := func(name string) ObjectKey { return ObjectKey{KindVirtualMachine, name} }
	tests := []struct {
		name, text string
		want       []ObjectKey
	}{
		{"one address", vmText("a", mac) + vmText("b", mac), []ObjectKey{vm("b"), vm("a")}},
		{"one port in one machine", vmText("a", `nics: [{name: lan, user: {forward: ["tcp::80:1", "tcp::80:2"]}}]`), []ObjectKey{vm("a")}},
		{"one name", vmText("a", "serial: {}") + vmText("a", "serial: {}"), []ObjectKey{vm("a")}},
		{"snapshot of nothing", vmText("a", "serial: {}") + snapText("s", "b"), []ObjectKey{{KindSnapshot, "s"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found := Admit(objectsOf(t, tt.text), nil, HostFacts{})
			if len(found) != 1 {
				t.Fatalf("faults: %v", found)
			}
			if diff := cmp.Diff(tt.want, found[0].Conflict); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
