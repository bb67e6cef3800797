package manifest

import (
	"strings"
	"testing"
)

// TestLoad_hostileText_isRefusedShortly holds texts that are large, deep or
// endless to one short answer each.
func TestLoad_hostileText_isRefusedShortly(t *testing.T) {
	const head = "apiVersion: maqet.io/v1alpha1\nkind: VirtualMachine\nmetadata: {name: a}\nspec:\n"
	long := strings.Repeat("x", 5<<20)
	tests := []struct{ name, text, want string }{
		{"5 MB key", head + "  " + long + ": 1\n", "not YAML: mapping values are not allowed in this context"},
		{"5 MB quoted key", head + "  ? \"" + long + "\"\n  : 1\n", "unknown key"},
		{"5 MB value where a word is wanted", head + "  powerState: " + long + "\n", `is not allowed; use "Running", "Paused" or "Stopped"`},
		{"1 MB size", head + "  memory: {size: " + strings.Repeat("9", 1<<20) + "}\n", "is larger than a size can be"},
		{"1 MB number", head + "  cpu: {count: " + strings.Repeat("9", 1<<20) + "}\n", "is out of range"},
		{"5 MB name", strings.Replace(head, "name: a", "name: "+long, 1) + "  {}\n", "a name has at most 63"},
		{"5 MB of text", long, "an object is a mapping"},
		{"deep flow lists", head + "  disks: " + strings.Repeat("[", 100_000) + "\n", "exceeded max depth"},
		{"deep flow lists that end", head + "  disks: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "\n", "spec.disks[0]: must be a mapping, not a list"},
		{"deep block lists", head + "  disks:\n  " + strings.Repeat("- ", 20_000) + "\n", "exceeded max depth"},
		{"deep in what is ignored", strings.Replace(head, "spec:", "status: "+strings.Repeat("{a: ", 5000)+strings.Repeat("}", 5000)+"\nspec: {x: 1}", 1), "unknown key"},
		{"aliases of aliases", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n", "apiVersion and kind are missing"},
		{"large text by aliases", head + "  emulator: {extraArgs: [-a, &a \"" + long[:1<<18] + "\"" + strings.Repeat(", *a", 1000) + "]}\n", aliasBudgetMsg},
		{"items by aliases", "apiVersion: v1\nkind: List\nitems:\n- &a {apiVersion: maqet.io/v1alpha1, kind: Snapshot, metadata: {name: a}, spec: {virtualMachine: b}}\n" + strings.Repeat("- *a\n", 5000), aliasBudgetMsg},
		{"too many unknown keys", head + manyKeys(200_000), "more faults in this file"},
		{"only tabs", "\t\t\t", "a tab cannot indent YAML"},
		{"UTF-16", "\xff\xfea\x00", "the file is UTF-16; save it as UTF-8"},
		{"UTF-16, other way round", "\xfe\xff\x00a", "the file is UTF-16; save it as UTF-8"},
		{"ends within a character", "a: \xc3", "byte 0xc3 is no UTF-8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			result := loadBytes([]byte(tt.text))
			checkFaults(t, result.faults)
			got := result.faults.Error()
			if !strings.Contains(got, tt.want) {
				t.Errorf("got %.500s\nwant %s", got, tt.want)
			}
			if len(got) > 100_000 {
				t.Errorf("the answer has %d bytes", len(got))
			}
		})
	}
}

// manyKeys are n lines, each with a key of its own.
func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("  k" + strings.Repeat("a", i%7) + string(rune('a'+i%26)) + strings.Repeat("b", i/26%20) + ": 1\n")
	}
	return b.String()
}

func TestLoad_5MBCommandLine_arrivesWhole(t *testing.T) {
	long := strings.Repeat("x", 5<<20)
	result := loadBytes([]byte(vmText("a", `boot: {kernel: {image: k, cmdline: "`+long+`"}}`)))
	if len(result.faults) > 0 || result.objects[0].VM.Spec.Boot.Kernel.Cmdline != long {
		t.Fatalf("faults %.500v", result.faults)
	}
}
