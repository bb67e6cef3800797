package reconcile

import (
	"fmt"
	"testing"

	"github.com/maqet/maqet/internal/timing"
)

func BenchmarkPlanMachine(b *testing.B) {
	s := newScene(rich).up()
	b.ReportAllocs()
	for b.Loop() {
		if p := s.plan(); !p.Empty() {
			b.Fatal(summary(p))
		}
	}
}

func BenchmarkApply_NoChange_50(b *testing.B) {
	host, store := newSimHost(), newMemStore()
	host.startTakes = 0
	e := NewEngine(Config{Ports: host.ports(), Store: store, Timing: timing.Default(), Who: "bench"})
	var objects []any
	for i := range 50 {
		objects = append(objects, newVM(fmt.Sprintf("vm%d", i), rich))
	}
	set := setOf(objects...)
	apply := func() {
		report, err := e.Apply(b.Context(), set, ApplyOptions{})
		if err != nil || report.Failed || report.Pending {
			b.Fatalf("%+v %v", report, err)
		}
	}
	apply()
	b.ReportAllocs()
	for b.Loop() {
		apply()
	}
}
