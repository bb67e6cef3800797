package e2e

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/maqet/maqet/e2e/internal/host"
)

// TestRestore_killedAtRandomMoments_isWholeOrNotBegun kills a restore 4 times (25 in
// soak) at moments spread over its run. Whoever applies next sees it through, or it had
// not begun: disk and memory are always of one time.
func TestRestore_killedAtRandomMoments_isWholeOrNotBegun(t *testing.T) {
	rounds := 4
	if os.Getenv("MAQET_SOAK") != "" {
		rounds = 25
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // moments, not secrets; a seed makes a failure repeatable
	r := newRemembering(t)
	r.learn("v1")
	r.Must(t, 0, "snapshot", "create", "web", "full")
	r.learn("v2")
	began := time.Now()
	r.Must(t, 0, "snapshot", "restore", "web", "full", "--no-safety")
	whole := time.Since(began)
	for range rounds {
		r.learn("v2")
		cmd := r.Command("snapshot", "restore", "web", "full", "--no-safety")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.NewTimer(time.Duration(random.Int64N(int64(whole) * 5 / 4)))
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-kill.C:
			if err := cmd.Process.Kill(); err != nil && cmd.ProcessState == nil {
				t.Fatal(err)
			}
			if err := <-ended; err == nil {
				t.Log("one was over before it was killed")
			}
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
		}
		if !host.Eventually(host.Settle, func() bool { _, _, code := r.Maqet(t, "apply", "-f", r.dir, "--wait"); return code == 0 }) {
			t.Fatalf("apply does not settle:\n%s", r.Must(t, 0, "describe", "web"))
		}
		if d, m := r.onDisk(), r.inMemory(); d != m || d != "v1" && d != "v2" {
			t.Fatalf("the guest has %q on disk and %q in memory", d, m)
		}
	}
}
