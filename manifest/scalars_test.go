package manifest

import (
	"fmt"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"
)

// slots are a manifest with one place left open for each form a scalar can have.
var slots = map[string]string{
	"text":     "metadata: {name: a}\nspec:\n  boot:\n    kernel:\n      image: /k\n      cmdline: %s\n",
	"label":    "metadata:\n  name: a\n  annotations:\n    k: %s\nspec: {}\n",
	"key":      "metadata:\n  name: a\n  annotations:\n    %s: v\nspec: {}\n",
	"number":   "metadata: {name: a}\nspec:\n  cpu:\n    count: %s\n",
	"bool":     "metadata: {name: a}\nspec:\n  serial:\n    log: %s\n",
	"property": "metadata: {name: a}\nspec:\n  machine:\n    properties:\n      p: %s\n",
	"quantity": "metadata: {name: a}\nspec:\n  memory:\n    size: %s\n",
	"duration": "metadata: {name: a}\nspec:\n  shutdown:\n    timeout: %s\n",
}

// trapWords are scalars that YAML readers disagree about, or nearly.
func trapWords() []string {
	return []string{
		"on", "Off", "yes", "NO", "y", "N", "true", "False", "TRUE", "null", "Null", "~", "0755", "0o17", "0x10", "0b11",
		"1_000", "1e3", "1E+3", ".5", "5.", "-0", "+1", "-1", "0", "00", "1.0", "1.50", ".inf", "-.INF", ".NaN", "2024-01-01",
		"2024-01-01T00:00:00Z", "12:30", "52:54:00:12:34:56", "190:20:30.15", "=", "<<", "512Mi", "60s", "1h30m", "9223372036854775807",
		"9223372036854775808", "18446744073709551615", "1.7976931348623157e309", "0.1", "123456789.123456", "''", `""`, `"on"`, "'1'", `"\u0041"`, "é",
	}
}

// TestLoad_anyScalarAnywhere_agreesWithSigs puts scalars of the alphabet of
// YAML's traps into every form of place: what is accepted must be what
// sigs.k8s.io/yaml reads, and must survive being written and read.
func TestLoad_anyScalarAnywhere_agreesWithSigs(t *testing.T) {
	const head = "apiVersion: maqet.io/v1alpha1\nkind: VirtualMachine\n"
	words := rapid.SampledFrom(trapWords())
	soup := rapid.StringOfN(rapid.RuneFrom([]rune("0123456789abefginosxyEFNOTY_+-.:~=<' \"\\é")), 1, 8, -1)
	rapid.Check(t, func(rt *rapid.T) {
		slot := rapid.SampledFrom([]string{"text", "label", "key", "number", "bool", "property", "quantity", "duration"}).Draw(rt, "slot")
		scalar := rapid.OneOf(words, soup).Draw(rt, "scalar")
		text := []byte(head + fmt.Sprintf(slots[slot], scalar))
		result := loadBytes(text)
		if len(result.faults) > 0 {
			checkFaults(t, result.faults)
			return
		}
		for _, o := range result.objects {
			checkStable(t, o)
		}
		checkAgainstSigs(t, text, result)
		if t.Failed() {
			rt.Fatalf("slot %s, scalar %q", slot, scalar)
		}
	})
}

// TestLoad_anyTextQuoted_arrivesIntact writes any text the way MarshalYAML
// does, and finds it again to the byte or refused.
func TestLoad_anyTextQuoted_arrivesIntact(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		note := strings.ToValidUTF8(rapid.String().Draw(rt, "note"), "?")
		soup := rapid.StringOfN(rapid.RuneFrom([]rune("0123456789abefginosxyEFNOTY_+-.:~=<,' \"\\é#&*!|>%@`{}[]?")), 1, 8, -1)
		cmdline := strings.ToValidUTF8(rapid.OneOf(rapid.String(), soup, rapid.SampledFrom(trapWords())).Draw(rt, "cmdline"), "?")
		vm := &VirtualMachine{APIVersion: APIVersion, Kind: KindVirtualMachine}
		vm.Metadata = Metadata{Name: "a", Annotations: map[string]string{"note": note}}
		vm.Spec.Boot = &Boot{Kernel: &Kernel{Image: "/k", Cmdline: cmdline}}
		text, err := MarshalYAML(vm)
		if err != nil {
			rt.Fatal(err)
		}
		result := loadBytes(text)
		refused := strings.IndexFunc(note+cmdline, isForeignBreak) >= 0 || strings.IndexFunc(cmdline, unicode.IsControl) >= 0
		if refused != (len(result.faults) > 0) {
			rt.Fatalf("control characters %v, faults %v\n%s", refused, result.faults, text)
		}
		if refused {
			return
		}
		got := result.objects[0].VM
		if got.Metadata.Annotations["note"] != note || got.Spec.Boot.Kernel.Cmdline != cmdline {
			rt.Fatalf("got %q and %q\n%s", got.Metadata.Annotations["note"], got.Spec.Boot.Kernel.Cmdline, text)
		}
	})
}
