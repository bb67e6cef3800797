package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sample() (Computer, []Result) {
	computer := Computer{
		Cores: 2, CPU: "Example 3000", Memory: "8 kB", Kernel: "6.1", QEMU: "QEMU 7.2",
		Accelerator: "tcg", Maqet: "maqet 1", Go: "go1.26",
	}
	return computer, []Result{
		{
			Case:  Case{Name: "apply", Does: "apply of 1", Against: "a script", Aim: "≤ 1.3"},
			Pairs: []Pair{{Ours: 0.036, Raw: 0.03}, {Ours: 0.045, Raw: 0.03}},
		},
		{Case: Case{Name: "validate", Does: "validate of 2000"}, Pairs: []Pair{{Ours: 1.5}}},
		{Case: Case{Name: "idle", Does: "nothing", Aim: "< 0.2 %", Unit: Cores}, Pairs: []Pair{{Ours: 0.0004}}},
		{Case: Case{Name: "memory", Does: "sit there", Unit: Bytes}, Pairs: []Pair{{Ours: 41.26e6}}},
		{Case: Case{Name: "virsh", Does: "start", Against: "virsh start"}, Err: fmt.Errorf("virsh: %w: not installed", ErrSkip)},
		{Case: Case{Name: "broken", Does: "nothing"}, Err: errors.New("it broke")},
	}
}

func TestWriteTable_results_alignedWithReasons(t *testing.T) {
	t.Parallel()
	const want = `2 cores (Example 3000), 8 kB memory, Linux 6.1
QEMU 7.2, accelerator tcg; maqet 1; go1.26

CASE      MAQET    RAW    RATIO  MIN–MAX          AIM      RUNS
apply     40.5 ms  30 ms  1.35   1.20–1.50        ≤ 1.3    2
validate  1.5 s    -      -      1.5 s–1.5 s      -        1
idle      0.04 %   -      -      0.04 %–0.04 %    < 0.2 %  1
memory    41.3 MB  -      -      41.3 MB–41.3 MB  -        1

Medians of pairs run in turn; the ratio is the median of the pairs' ratios.

apply: apply of 1, against a script
validate: validate of 2000
idle: nothing
memory: sit there
virsh: start, against virsh start; not run: virsh: skipped: not installed
broken: nothing; FAILED: it broke
`
	var out bytes.Buffer
	computer, results := sample()
	if err := WriteTable(&out, computer, results); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestWriteJSON_results_everyPairAndReason(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	computer, results := sample()
	if err := WriteJSON(&out, computer, results); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Computer Computer
		Cases    []struct {
			Unit    string
			Pairs   []Pair
			Ours    Spread `json:"maqet"`
			Ratio   *Spread
			Skipped bool
			Error   string
		}
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(computer, got.Computer); diff != "" {
		t.Errorf("computer (-want +got):\n%s", diff)
	}
	if len(got.Cases) != len(results) {
		t.Fatalf("%d cases, want %d", len(got.Cases), len(results))
	}
	apply, validate, idle, virsh, broken := got.Cases[0], got.Cases[1], got.Cases[2], got.Cases[4], got.Cases[5]
	if diff := cmp.Diff(results[0].Pairs, apply.Pairs); diff != "" || apply.Ratio == nil || apply.Ratio.Max != 1.5 {
		t.Errorf("apply: ratio %v, pairs (-want +got):\n%s", apply.Ratio, diff)
	}
	if validate.Ratio != nil || validate.Ours.Median != 1.5 {
		t.Errorf("validate: ratio %v, median %v; want none, 1.5", validate.Ratio, validate.Ours.Median)
	}
	if apply.Unit != "seconds" || idle.Unit != "cores" {
		t.Errorf("units %q and %q, want seconds and cores", apply.Unit, idle.Unit)
	}
	if !virsh.Skipped || virsh.Error == "" || broken.Skipped || broken.Error != "it broke" {
		t.Errorf("skipped and failed cases are %+v and %+v", virsh, broken)
	}
}

func TestShow_durations_threeDigits(t *testing.T) {
	t.Parallel()
	for s, want := range map[float64]string{0.000512: "0.512 ms", 0.0314159: "31.4 ms", 0.9994: "999 ms", 1.6: "1.6 s", 12.345: "12.3 s"} {
		if got := Seconds.show(s); got != want {
			t.Errorf("show %v: %q, want %q", s, got, want)
		}
	}
}
