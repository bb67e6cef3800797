package e2e

import (
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/maqet/maqet/e2e/internal/host"
)

// prints waits until a command's output matches, line by line.
func (w *watching) prints(want string, args ...string) {
	w.Helper()
	re := regexp.MustCompile("(?m)" + want)
	var stdout string
	if !host.Eventually(host.Settle, func() bool {
		stdout, _, _ = w.Maqet(w.T, args...)
		return re.MatchString(stdout)
	}) {
		w.Fatalf("maqet %s never printed %q but:\n%s", strings.Join(args, " "), want, stdout)
	}
}

// TestWatch_crashLoop_isShownWithCauseAndLastWords asks commands that know nothing of
// the watch's own times, which make the back-off last.
func TestWatch_crashLoop_isShownWithCauseAndLastWords(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 1)
	w.watch = w.Watch(t, w.dir, "--timeouts", "backoff=1h,backoff-max=2h")
	w.Phase(t, "vm0", "Running")
	w.listened("vm0")
	w.signal("vm0", syscall.SIGTERM)
	const words = "terminating on signal 15"
	w.prints(`^vm0 +CrashLoopBackOff .*Signal`, "get")
	w.prints(`^Phase: +CrashLoopBackOff \(Signal\)`, "describe", "vm0")
	w.prints(`^Next try: .*failures in a row: 1`, "describe", "vm0")
	w.prints(`^Last end: +Signal .*`+words, "describe", "vm0")
	w.prints(`^.* vm0 +Warning +Signal .*`+words, "events", "vm0")
	if s := w.Status(t, "vm0"); s.Phase != "CrashLoopBackOff" || len(w.QEMUs()) != 0 {
		t.Errorf("in the back-off it is %+v, QEMUs %v", s, w.QEMUs())
	}
	// A person need not wait for it.
	w.Must(t, 0, "start", "vm0")
	if s := w.Phase(t, "vm0", "Running"); s.Failures != 0 {
		t.Errorf("started by hand it is %+v", s)
	}
}

// TestWatch_qemuThatRefuses_isToldInItsWords has arguments that QEMU ends of at once.
func TestWatch_qemuThatRefuses_isToldInItsWords(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 1)
	w.begin()
	before := w.running(1)
	w.put("bad.yaml", strings.ReplaceAll(small("bad", ""), "{type: q35}", "{type: q35, properties: {nosuch: true}}"))
	w.prints(`^.* bad +Warning .*nosuch' not found`, "events", "bad")
	w.says("nosuch' not found")
	w.put("bad.yaml", small("bad", ""))
	w.Phase(t, "bad", "Running")
	before["bad"] = w.PID(t, "bad")
	w.same(before, "mended")
}

// TestWatch_brokenFile_isShownEverywhere asks everywhere a person would.
func TestWatch_brokenFile_isShownEverywhere(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 1)
	w.begin()
	before := w.running(1)
	w.put("vm0.yaml", small("vm0", "  memroy: {size: 1Gi}\n"))
	const where = `vm0\.yaml:\d+:\d+.*memroy`
	w.prints(`^vm0 +Running .*ManifestInvalid`, "get")
	w.prints(`^  ManifestInvalid +True .*`+where, "describe", "vm0")
	w.prints(`vm0 +Warning +ManifestInvalid .*`+where, "events", "vm0")
	deadline(t, "the log says so", func() bool {
		return regexp.MustCompile(`level=ERROR msg="manifests are at fault.*` + where).MatchString(w.watch.Log())
	})
	w.same(before, "a broken file")
	w.write("vm0", "")
	w.clear("vm0", "ManifestInvalid")
	w.says("the manifests are good again")
}
