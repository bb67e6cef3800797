package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
	"github.com/maqet/maqet/state"
)

func TestDescribeChange_eachShape_readsAsASentence(t *testing.T) {
	tests := map[string]struct {
		change reconcile.Change
		want   string
	}{
		"changed": {reconcile.Change{Path: "spec.memory.size", From: "1Gi", To: "2Gi", Class: reconcile.ClassRestart, Why: "QEMU cannot"}, "spec.memory.size 1Gi -> 2Gi, restart (QEMU cannot)"},
		"added":   {reconcile.Change{Path: "spec.disks[data]", To: "64Mi", Class: reconcile.ClassRestart}, "spec.disks[data] 64Mi, restart"},
		"removed": {reconcile.Change{Path: "spec.nics[lan]", From: "user", Class: reconcile.ClassRestart}, "spec.nics[lan] user removed, restart"},
		"drift":   {reconcile.Change{Path: "spec.cpu.count", From: "2", To: "1", Class: reconcile.ClassLive, Drift: true}, "spec.cpu.count 2 -> 1, live, drift"},
		"bare":    {reconcile.Change{Path: "metadata.labels[a]", Class: reconcile.ClassMetadata}, "metadata.labels[a], metadata"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := describeChange(tt.change); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestDescribeStep_eachShape_readsAsASentence(t *testing.T) {
	tests := map[string]struct {
		step reconcile.Step
		want string
	}{
		"bare":     {reconcile.Step{Kind: reconcile.StepStart}, "start"},
		"disk":     {reconcile.Step{Kind: reconcile.StepCreateDisk, Disk: "data", Why: "new"}, "create-disk data (new)"},
		"snapshot": {reconcile.Step{Kind: reconcile.StepTakeSnapshot, Snapshot: "a"}, "take-snapshot a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := describeStep(tt.step); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDescribeHold_withAll_namesWhoWhenWhyAndTheEnd(t *testing.T) {
	since := time.Date(2030, 1, 2, 3, 4, 5, 0, time.Local)
	hold := &state.Hold{PowerState: manifest.PowerStopped, Who: "ann", Why: "disk", Since: since, Until: since.Add(time.Hour)}
	want := "held Stopped by ann since 2030-01-02 03:04:05 until 2030-01-02 04:04:05 (disk); end it with: maqet release web"
	if got := describeHold("web", hold); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestDescribeCounts_classes_areInOrderOfPrice(t *testing.T) {
	got := describeCounts(map[reconcile.Class]int{reconcile.ClassRestart: 1, reconcile.ClassLive: 2})
	if got != "; changes: 2 live, 1 restart" {
		t.Errorf("got %q", got)
	}
	if got := describeCounts(nil); got != "" {
		t.Errorf("without changes: %q", got)
	}
}

func TestDescribeCount_oneAndMany_haveTheirForms(t *testing.T) {
	for n, want := range map[int]string{0: "0 machines", 1: "1 machine", 2: "2 machines"} {
		if got := describeCount(n, "machine"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestShortDuration_anyLength_isShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 179 * time.Minute: "179m",
		3*time.Hour + 20*time.Minute: "3h20m", 48 * time.Hour: "2d", 100 * 24 * time.Hour: "100d",
	} {
		if got := shortDuration(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

func TestMachineNames_asPeopleWriteThem_areNamesOnce(t *testing.T) {
	got, err := machineNames([]string{"web", "vm/db", "VirtualMachine/web"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"web", "db"}, got); diff != "" {
		t.Errorf("names differ (-want +got):\n%s", diff)
	}
}

func TestGetTargets_kindsAndNames_areToldApart(t *testing.T) {
	tests := map[string]struct {
		args  []string
		kind  manifest.Kind
		names []string
	}{
		"nothing":        {nil, manifest.KindVirtualMachine, nil},
		"a machine":      {[]string{"web"}, manifest.KindVirtualMachine, []string{"web"}},
		"a kind":         {[]string{"snap"}, manifest.KindSnapshot, nil},
		"kind and names": {[]string{"snapshots", "a", "b"}, manifest.KindSnapshot, []string{"a", "b"}},
		"slash":          {[]string{"snap/a", "snap/b"}, manifest.KindSnapshot, []string{"a", "b"}},
		"both":           {[]string{"vm", "vm/web"}, manifest.KindVirtualMachine, []string{"web"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			kind, names, err := getTargets(tt.args)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.names, names); kind != tt.kind || diff != "" {
				t.Errorf("kind %s, names differ (-want +got):\n%s", kind, diff)
			}
		})
	}
}

func TestOwnerOf_roots_areFoldersOnce(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		roots []string
		want  string
	}{
		"a folder":            {[]string{dir}, dir},
		"a file of it":        {[]string{file}, dir},
		"both":                {[]string{file, dir}, dir},
		"standard input":      {[]string{"-"}, reconcile.OwnerStdin},
		"and a folder":        {[]string{"-", dir}, dir},
		"two, in fixed order": {[]string{dir, "/a"}, "/a," + dir},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := ownerOf(tt.roots); got != tt.want {
				t.Errorf("owner %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAbsence_fileOfAFolder_provesNothingOfTheOthers(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		flags   applyFlags
		roots   []string
		proved  bool
		refused bool
	}{
		"a folder":                {applyFlags{prune: true}, []string{dir}, true, false},
		"a file":                  {applyFlags{}, []string{file}, false, false},
		"a file, to prune":        {applyFlags{prune: true}, []string{file}, false, true},
		"a file and its folder":   {applyFlags{prune: true}, []string{file, dir}, true, false},
		"a file of a named owner": {applyFlags{prune: true, owner: "me"}, []string{file}, true, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			proved, err := tt.flags.absence(tt.roots)
			if proved != tt.proved || (err != nil) != tt.refused {
				t.Errorf("proved %v, error %v", proved, err)
			}
		})
	}
}

func TestQMPArguments_eachForm_givesTheSameValues(t *testing.T) {
	tests := map[string]struct {
		pairs []string
		json  string
		want  string
	}{
		"none":           {nil, "", "null\n"},
		"text":           {[]string{"path=/machine"}, "", "{\n  \"path\": \"/machine\"\n}\n"},
		"number":         {[]string{"n=42"}, "", "{\n  \"n\": 42\n}\n"},
		"big number":     {[]string{"n=18446744073709551615"}, "", "{\n  \"n\": 18446744073709551615\n}\n"},
		"boolean":        {[]string{"on=true"}, "", "{\n  \"on\": true\n}\n"},
		"not quite JSON": {[]string{"a=1 2"}, "", "{\n  \"a\": \"1 2\"\n}\n"},
		"equals sign":    {[]string{"a=b=c"}, "", "{\n  \"a\": \"b=c\"\n}\n"},
		"empty":          {[]string{"a="}, "", "{\n  \"a\": \"\"\n}\n"},
		"object":         {nil, `{"n": 42, "deep": {"x": [1]}}`, "{\n  \"deep\": {\n    \"x\": [\n      1\n    ]\n  },\n  \"n\": 42\n}\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := qmpArguments(tt.pairs, tt.json)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := writeJSON(&out, got); err != nil {
				t.Fatal(err)
			}
			if out.String() != tt.want {
				t.Errorf("got %s, want %s", out.String(), tt.want)
			}
		})
	}
}

func TestQMPArguments_malformed_areRefused(t *testing.T) {
	tests := map[string]struct {
		pairs []string
		json  string
	}{
		"no name":   {[]string{"=x"}, ""},
		"no value":  {[]string{"x"}, ""},
		"twice":     {[]string{"x=1", "x=2"}, ""},
		"both":      {[]string{"x=1"}, "{}"},
		"a list":    {nil, "[1]"},
		"null":      {nil, "null"},
		"two":       {nil, "{} {}"},
		"unclosed":  {nil, `{"a"`},
		"not JSON5": {nil, "{a: 1}"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := qmpArguments(tt.pairs, tt.json); !errors.As(err, new(*usageError)) {
				t.Errorf("got %v, error %v", got, err)
			}
		})
	}
}

func TestIsDangerous_commands_areToldApart(t *testing.T) {
	for _, command := range []string{
		"quit", "human-monitor-command", "device-list-properties", "migrate", "migrate_cancel", "migrate-incoming", "snapshot-load",
		"netdev_add", "getfd", "add-fd", "set-action", "object-add", "xen-load-devices-state", "x-exit-preconfig", "dump-guest-memory", "memsave", "pmemsave",
	} {
		if !isDangerous(command) {
			t.Errorf("%s runs without a word", command)
		}
	}
	for _, command := range []string{"query-status", "stop", "cont", "device_add", "device_del", "query-migrate", "qom-get", "screendump"} {
		if isDangerous(command) {
			t.Errorf("%s needs a word", command)
		}
	}
}

func TestNoteOf_severalReasons_namesEachOnce(t *testing.T) {
	v := reconcile.View{
		Status: reconcile.Status{
			Reason: "NoAnswer", Hold: &state.Hold{PowerState: manifest.PowerStopped, Who: "ann", Why: "disk", Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)},
			Conditions: []state.Condition{{Type: "Ready", Status: "True"}, {Type: "Held", Status: "True"}, {Type: "Stalled", Status: "True"}, {Type: "Drifted", Status: "False"}},
		},
		Plan: reconcile.Plan{Problems: []reconcile.Problem{{Reason: "NoAnswer"}, {Reason: "DiskSize"}}},
	}
	if got, want := noteOf(v), "NoAnswer, held Stopped by ann since 2026-01-02 03:04:05 (disk), Stalled, DiskSize"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPrintMachines_wideAndNot_linesUp(t *testing.T) {
	size, ports := manifest.Quantity(64<<20), 2
	running := reconcile.View{
		Machine: &state.Machine{Owner: "/vms", Object: manifest.VirtualMachine{Metadata: manifest.Metadata{Name: "web"}}},
		Status: reconcile.Status{
			Phase: reconcile.PhaseRunning, PID: 42, Restarts: 1, StartedAt: time.Now(), Conditions: []state.Condition{{Type: "Ready", Status: "True"}},
			Observed: &reconcile.ObservedStatus{CPUs: 2, Memory: size, MachineType: "pc-q35-7.2", Accelerator: "tcg", QEMUVersion: "7.2.22", FreePorts: &ports},
			Guest:    &driver.GuestInfo{Hostname: "www", Addresses: []string{"10.0.2.15", "fec0::1"}, OS: &driver.GuestOS{Name: "Debian 12"}},
		},
		Observed: driver.Observed{},
	}
	stopped := reconcile.View{
		Machine: &state.Machine{Object: manifest.VirtualMachine{
			Metadata: manifest.Metadata{Name: "a-long-name"}, Spec: manifest.VirtualMachineSpec{Memory: &manifest.Memory{Size: size}},
		}},
		Status: reconcile.Status{Phase: reconcile.PhaseStopped},
	}
	tests := map[string]struct {
		wide bool
		want string
	}{
		"narrow": {false, `NAME          PHASE     READY   CPUS   MEMORY   RESTARTS   UP   NOTE
web           Running   True    2      64Mi     1          0s
a-long-name   Stopped   -       -      64Mi     0          -
`},
		"wide": {true, `NAME          PHASE     READY   CPUS   MEMORY   RESTARTS   UP   PID   MACHINE      ACCEL   QEMU     PORTS   HOSTNAME   ADDRESSES           OS          OWNER   NOTE
web           Running   True    2      64Mi     1          0s   42    pc-q35-7.2   tcg     7.2.22   2       www        10.0.2.15,fec0::1   Debian 12   /vms
a-long-name   Stopped   -       -      64Mi     0          -    -     -            -       -        -       -          -                   -           -
`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			env, out, _ := pipes()
			printMachines(env, []reconcile.View{running, stopped}, tt.wide)
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Errorf("the table differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestColorPhase_terminalAndPipe_differ(t *testing.T) {
	quiet, _, _ := pipes()
	person, _ := seat()
	for _, phase := range []reconcile.Phase{reconcile.PhaseRunning, reconcile.PhaseFailed, reconcile.PhasePaused, reconcile.PhaseStopped} {
		if got := colorPhase(quiet, phase); got != string(phase) {
			t.Errorf("a pipe gets %q", got)
		}
		if got := colorPhase(person, phase); got == string(phase) {
			t.Errorf("a terminal gets no colour for %s", phase)
		}
	}
	person.getenv = func(name string) string { return map[string]string{"NO_COLOR": "1"}[name] }
	if got := colorPhase(person, reconcile.PhaseFailed); got != "Failed" {
		t.Errorf("NO_COLOR gets %q", got)
	}
}
