package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// TestWatch_killedAtRandomMoments_disturbsNobody kills the watch 8 times (50 in
// soak, MAQET_SOAK=1), from its first instruction on, while four guests run and
// files are edited: labels, and a machine that comes and goes.
func TestWatch_killedAtRandomMoments_disturbsNobody(t *testing.T) {
	const machines = 4
	rounds := 8
	if os.Getenv("MAQET_SOAK") != "" {
		rounds = 50
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // moments, not secrets; a seed makes a failure repeatable
	w := newWatching(t, machines)
	w.begin("--prune")
	before := w.running(machines)
	for round := range rounds {
		moment := time.Duration(random.Int64N(int64(600 * time.Millisecond)))
		if round%4 == 3 {
			// This one is killed while it begins.
			w.watch.Kill()
			cmd := w.Command("watch", w.dir, "--prune", "--timeouts", quick)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.edit(round, machines)
			killed := time.After(moment / 4)
			<-killed
			_ = cmd.Process.Kill() // it may not get that far
			_ = cmd.Wait()         // killed on purpose
		} else {
			w.edit(round, machines)
			killed := time.After(moment)
			<-killed
			w.watch.Kill()
		}
		w.begin("--prune")
		if round%2 == 0 {
			w.Phase(t, "extra", "Running")
		}
		w.empty()
		after := w.pids()
		maps.DeleteFunc(after, func(name string, _ int) bool { return name == "extra" })
		for name, pid := range before {
			if after[name] != pid {
				t.Fatalf("round %d, killed after %s: %s is %d, was %d", round, moment, name, after[name], pid)
			}
		}
		if len(after) != machines {
			t.Fatalf("round %d, killed after %s: QEMU processes %v", round, moment, after)
		}
	}
	for name := range before {
		if s := w.Status(t, name); s.Restarts != 0 || s.Cause() != "" {
			t.Errorf("%s at the end: %+v", name, s)
		}
	}
}

// edit changes every file, and has one more machine every other round.
func (w *watching) edit(round, machines int) {
	w.Helper()
	for i := range machines {
		w.label(vmName(i), round)
	}
	if round%2 == 0 {
		w.write("extra", "")
		return
	}
	w.remove("extra.yaml")
}

// label writes a machine with another label, which concerns no guest.
func (w *watching) label(name string, n int) {
	w.Helper()
	w.put(name+".yaml", small(fmt.Sprintf("%s, labels: {edit: n%d}", name, n), ""))
}
