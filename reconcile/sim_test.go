package reconcile

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// The size of the simulation: simSeeds worlds of simSteps steps each, so 3,200
// steps by default and 100,000 with MAQET_SOAK=1.
const (
	simSteps     = 400
	simSeeds     = 8
	simSoakSeeds = 250
)

// TestController_simulatedWorld_keepsTheLaws lets everything happen to a host
// that a controller keeps: files, people, guests, QEMU, the state dir and the
// controller itself. No guest may be stopped, started or deleted without cause,
// holds are honoured, and when all faults have ended, all is as the folder says.
//
// A seed is the same world in every run, whatever else the computer does; see
// simTurns. MAQET_SIM_SEED=N runs that of seed N alone.
func TestController_simulatedWorld_keepsTheLaws(t *testing.T) {
	if seed := os.Getenv("MAQET_SIM_SEED"); seed != "" {
		n, err := strconv.ParseUint(seed, 10, 64)
		if err != nil {
			t.Fatalf("MAQET_SIM_SEED: %v", err)
		}
		simulate(t, n, simSteps)
		return
	}
	seeds := uint64(simSeeds)
	if os.Getenv("MAQET_SOAK") == "1" {
		seeds = simSoakSeeds
	}
	name := t.Name()
	var failed atomic.Bool
	for seed := range seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			if failed.Load() {
				return // One broken world is enough to read.
			}
			if simulate(t, seed, simSteps); t.Failed() {
				failed.Store(true)
				t.Logf("replay: MAQET_SIM_SEED=%d go test -run '^%s$' ./reconcile", seed, name)
			}
		})
	}
}

// simulate runs one world, and returns what happened in it.
func simulate(t *testing.T, seed uint64, steps int) (trail []string) {
	t.Helper()
	w := inSim(t, seed, func(w *simWorld) {
		for range steps {
			if w.step(); len(w.broken) > 0 {
				return
			}
		}
		w.calms()
		w.converged()
	})
	if len(w.broken) > 0 {
		from := max(len(w.trail)-120, 0)
		t.Error(fmt.Sprintf("%d laws broken, first: %s\n", len(w.broken), w.broken[0]) + strings.Join(w.trail[from:], "\n"))
	}
	return w.trail
}
