package imagestore

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// TestPull_killedAtRandomMoments_isDoneAgain kills a process that fetches, and asks
// again until one gets through.
func TestPull_killedAtRandomMoments_isDoneAgain(t *testing.T) {
	rounds := 4
	if os.Getenv("MAQET_SOAK") != "" {
		rounds = 200
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // moments, not secrets
	content := noise(8 << 20)
	packed := pack(t, "gz", content)
	srv := serve(t, file(packed, "a"))
	file := writeTest(t, "disk.raw.gz", packed)
	for round := range rounds {
		source := srv.URL + "/disk.raw.gz"
		if round%2 == 1 {
			source = file
		}
		s := newStore(t)
		spec := rawSpec(source, packed)
		for range 3 {
			cmd := s.process(t, spec)
			moment := time.Duration(random.Int64N(int64(150 * time.Millisecond)))
			timer := time.AfterFunc(moment, func() { _ = cmd.Process.Kill() }) // it may have ended before
			_ = cmd.Wait()
			timer.Stop()
			if state := s.Look(spec); state.Present {
				wantStored(t, state, content)
			}
		}
		state, err := s.Pull(t.Context(), spec, nil)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		wantStored(t, state, content)
		pruned, err := s.Prune(t.Context(), Known{Names: map[string][]string{spec.Digest(): {"a"}}}, PruneOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pruned {
			if p.What != "image" {
				t.Errorf("round %d left %+v", round, p)
			}
		}
		s.wantOnly(t, spec.Digest())
	}
}
