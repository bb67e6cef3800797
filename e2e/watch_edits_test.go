package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/e2e/internal/host"
)

// TestWatch_thirtyEditsASecond_endsInTheLastState edits for 5 s (a minute in soak,
// MAQET_SOAK=1): labels, which concern no guest, half-written files, and the power
// state of one machine that ends up running.
func TestWatch_thirtyEditsASecond_endsInTheLastState(t *testing.T) {
	const machines, rate = 3, 30
	lasts := 5 * time.Second
	if os.Getenv("MAQET_SOAK") != "" {
		lasts = time.Minute
	}
	w := newWatching(t, machines)
	w.begin()
	before := w.running(machines)
	cpu := cpuTime(t, w.watch.PID())
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	edits := int(lasts / (time.Second / rate))
	for n := range edits {
		<-tick.C
		switch name := vmName(n % machines); n % 7 {
		case 0, 1, 2, 3:
			w.label(name, n)
		case 4:
			// As an editor does that writes in place: for a moment it is half a file.
			path := filepath.Join(w.dir, name+".yaml")
			if err := os.WriteFile(path, []byte(small(name, "  cpu: {co")), 0o600); err != nil {
				t.Fatal(err)
			}
		case 5:
			w.put("cycle.yaml", small("cycle", "  powerState: "+[]string{"Running", "Paused"}[n%2]+"\n"))
		case 6:
			w.remove("cycle.yaml")
		}
	}
	for i := range machines {
		w.label(vmName(i), edits)
	}
	w.write("cycle", "")
	w.Phase(t, "cycle", "Running")
	for i := range machines {
		last := fmt.Sprintf("n%d\n", edits)
		if !host.Eventually(host.Settle, func() bool {
			return w.Must(t, 0, "get", vmName(i), "-o", "jsonpath={.metadata.labels.edit}") == last
		}) {
			t.Errorf("%s never got its last label", vmName(i))
		}
	}
	w.empty()
	after := w.pids()
	for name, pid := range before {
		if s := w.Status(t, name); after[name] != pid || s.Restarts != 0 || s.Condition("ManifestInvalid") != nil {
			t.Errorf("%s is pid %d (was %d), %+v", name, after[name], pid, s)
		}
	}
	if s := w.Status(t, "cycle"); s.Restarts != 0 {
		t.Errorf("the machine that was paused and resumed was restarted: %+v", s)
	}
	// Reading a folder thirty times a second may cost something, but not a processor.
	used := cpuTime(t, w.watch.PID()) - cpu
	t.Logf("%d edits in %s cost the watch %s", edits, lasts, used)
	if !raceBuild && used > lasts/2 {
		t.Errorf("%d edits in %s cost the watch %s of a processor", edits, lasts, used)
	}
}

// cpuTime is how long a process has been on a processor.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// The fields after the name, which may hold anything; utime and stime are the 14th and 15th of all.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+2:]))
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	const ticksPerSecond = 100 // Linux shows times in hundredths on all platforms.
	return time.Duration(ticks) * time.Second / ticksPerSecond
}
