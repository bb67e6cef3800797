package e2e

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
)

// repository is the root of this repository.
func repository(t *testing.T) string {
	t.Helper()
	root, err := guest.Root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// making runs a target of the Makefile with the binary under test.
func making(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("make", append([]string{"--no-print-directory", "-C", repository(t), "BINARY=" + binary}, args...)...)
	// Variables of a make that runs these tests must not reach the one tested.
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "PREFIX=/usr/local", "DESTDIR=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// installed are the files below a folder, with their modes.
func installed(t *testing.T, dir string) map[string]fs.FileMode {
	t.Helper()
	found := map[string]fs.FileMode{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		found[name] = info.Mode()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestInstall_stagedTwiceAndRemoved_touchesJustItsFiles(t *testing.T) {
	t.Parallel()
	stage := t.TempDir()
	want := map[string]fs.FileMode{
		"opt/maqet/bin/maqet": 0o755,
		"opt/maqet/lib/systemd/system/maqet-guests-shutdown.service": 0o644,
		"opt/maqet/lib/systemd/system/maqet-sync.service":            0o644,
		"opt/maqet/lib/systemd/system/maqet-sync.timer":              0o644,
		"opt/maqet/lib/systemd/system/maqet.service":                 0o644,
		"opt/maqet/lib/systemd/user/maqet-guests-shutdown.service":   0o644,
		"opt/maqet/lib/systemd/user/maqet.service":                   0o644,
		"opt/maqet/lib/sysusers.d/maqet-sync.conf":                   0o644,
	}
	for range 2 {
		making(t, "install", "DESTDIR="+stage, "PREFIX=/opt/maqet")
		if diff := cmp.Diff(want, installed(t, stage)); diff != "" {
			t.Fatalf("installed files (-want +got):\n%s", diff)
		}
	}
	for name := range want {
		text, err := os.ReadFile(filepath.Join(stage, name))
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(name) == ".service" && bytes.Contains(text, []byte("/usr/local")) {
			t.Errorf("%s names another prefix:\n%s", name, text)
		}
	}
	// What is not the installer's stays, beside its files and elsewhere.
	kept := map[string]fs.FileMode{
		"etc/default/maqet": 0o600, "var/lib/maqet/state.db": 0o600, "opt/maqet/lib/systemd/system/other.service": 0o600,
		"opt/maqet/lib/systemd/system/maqet.service.d/site.conf": 0o600,
	}
	for name, mode := range kept {
		path := filepath.Join(stage, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		making(t, "uninstall", "DESTDIR="+stage, "PREFIX=/opt/maqet")
		if diff := cmp.Diff(kept, installed(t, stage)); diff != "" {
			t.Fatalf("files after uninstall (-want +got):\n%s", diff)
		}
	}
}

func TestInstall_badPrefixOrNoBinary_installsNothingAndSaysWhy(t *testing.T) {
	t.Parallel()
	stage := t.TempDir()
	for _, c := range []struct{ binary, prefix, want string }{
		{binary, "usr/local", "must be an absolute path"},
		{binary, "/opt/a b", "must be an absolute path"},
		{binary, "/opt/$(id)", "must be an absolute path"},
		{filepath.Join(stage, "none"), "/usr", "run: make build"},
	} {
		cmd := exec.Command(filepath.Join(repository(t), "hack", "install.sh"), "install", c.binary, c.prefix, stage)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || !strings.Contains(string(out), c.want) {
			t.Errorf("install of %s to %q: %v, %q; want a failure with %q", c.binary, c.prefix, err, out, c.want)
		}
	}
	if left := installed(t, stage); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestUnits_verifiedBySystemd_haveNoFinding lets systemd read the units as they
// are installed. It needs no running systemd, but the programs they start.
func TestUnits_verifiedBySystemd_haveNoFinding(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed, so the units are not verified; run: make install-deps")
	}
	prefix := t.TempDir()
	making(t, "install", "PREFIX="+prefix)
	for _, kind := range []string{"system", "user"} {
		dir := filepath.Join(prefix, "lib/systemd", kind)
		if findings := verify(t, kind, dir); findings != "" {
			t.Errorf("units of the %s:\n%s", kind, findings)
		}
		// A verifier that lets everything pass would say nothing above.
		unit := filepath.Join(dir, "maqet.service")
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		broken := strings.NewReplacer("WatchdogSec=60", "WatchdogSec=soon", "KillMode=", "KilMode=", prefix, "/nowhere").Replace(string(text))
		if err := os.WriteFile(unit, []byte(broken), 0o600); err != nil { //nolint:gosec // a file in the test's own folder.
			t.Fatal(err)
		}
		findings := verify(t, kind, dir)
		for _, want := range []string{"soon", "KilMode", "/nowhere/bin/maqet"} {
			if !strings.Contains(findings, want) {
				t.Errorf("%s: the mistake %q was not found:\n%s", kind, want, findings)
			}
		}
	}
}

// verify returns what systemd has to say against the units of a folder.
func verify(t *testing.T, kind, dir string) string {
	t.Helper()
	units, err := filepath.Glob(filepath.Join(dir, "maqet*"))
	if err != nil || len(units) == 0 {
		t.Fatalf("units in %s: %v, %v", dir, units, err)
	}
	cmd := exec.Command("systemd-analyze", append([]string{"--" + kind, "verify", "--man=no"}, units...)...)
	// The colon adds systemd's own folders, where the targets are.
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":", "XDG_RUNTIME_DIR="+t.TempDir(), "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatalf("systemd-analyze: %v", err)
	}
	return string(out)
}

// TestUnits_whatGuestsDependOn_isThere guards the lines without which a restart of
// maqet or of the host would cost guests their lives; systemd accepts units without.
func TestUnits_whatGuestsDependOn_isThere(t *testing.T) {
	t.Parallel()
	for unit, lines := range map[string][]string{
		"maqet.service": {
			"Type=notify", "WatchdogSec=60", "KillMode=process", "OOMPolicy=continue", "RuntimeDirectory=maqet", "RuntimeDirectoryPreserve=yes",
			"TasksMax=infinity", "Restart=on-failure", "ExecReload=kill -HUP $MAINPID", "After=maqet-guests-shutdown.service",
		},
		"user/maqet.service": {
			"Type=notify", "WatchdogSec=60", "KillMode=process", "OOMPolicy=continue", "RuntimeDirectory=maqet", "RuntimeDirectoryPreserve=yes",
			"TasksMax=infinity", "Restart=on-failure", "ExecReload=kill -HUP $MAINPID", "After=maqet-guests-shutdown.service",
		},
		"maqet-guests-shutdown.service":      {"RemainAfterExit=yes", "RefuseManualStop=yes", "Before=maqet.service", "RequiresMountsFor=/var/lib/maqet"},
		"user/maqet-guests-shutdown.service": {"RemainAfterExit=yes", "RefuseManualStop=yes", "Before=maqet.service"},
	} {
		text, err := os.ReadFile(filepath.Join(repository(t), "examples/gitops/systemd", unit))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			if !strings.Contains("\n"+string(text), "\n"+line+"\n") {
				t.Errorf("%s: no line %s", unit, line)
			}
		}
		if strings.HasSuffix(unit, "shutdown.service") && regexp.MustCompile(`(?m)^ExecStart`).Match(text) {
			t.Errorf("%s does something at boot", unit)
		}
	}
}

// execLine is the command line of a unit's line, for a maqet that was installed.
func execLine(t *testing.T, unit, key string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository(t), "examples/gitops/systemd", unit))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^` + key + `=/usr/local/bin/maqet (.*)$`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("%s: no %s of maqet", unit, key)
	}
	var words []string
	for _, m := range regexp.MustCompile(`"([^"]*)"|(\S+)`).FindAllStringSubmatch(string(found[1]), -1) {
		words = append(words, m[1]+m[2])
	}
	return words
}

func TestUnits_hostShutdown_endsGuestsForThisBoot(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{"maqet-guests-shutdown.service", "user/maqet-guests-shutdown.service"} {
		h := host.New(t, binary)
		// A host without machines goes down without a complaint.
		h.Must(t, 0, execLine(t, unit, "ExecStop")...)
		dir := t.TempDir()
		manifest := "apiVersion: maqet.io/v1alpha1\nkind: VirtualMachine\nmetadata: {name: web}\nspec:\n  machine: {type: q35}\n  memory: {size: 64Mi}\n  shutdown: {timeout: 1s}\n"
		if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(manifest), 0o600); err != nil {
			t.Fatal(err)
		}
		h.Must(t, 0, "apply", "-f", dir)
		if n := len(h.QEMUs()["web"]); n != 1 {
			t.Fatalf("%d QEMUs before the shutdown", n)
		}
		h.Must(t, 0, execLine(t, unit, "ExecStop")...)
		if left := h.QEMUs(); len(left) > 0 {
			t.Errorf("%s: left running: %v", unit, left)
		}
		if out := h.Must(t, 0, "describe", "web"); !strings.Contains(out, "until the host boots again (the host goes down)") {
			t.Errorf("%s: the hold:\n%s", unit, out)
		}
	}
}

func TestKustomize_everyHost_isBuiltAndValid(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(repository(t), "examples/gitops/kustomize")
	h := host.New(t, binary)
	for name, machines := range map[string][]string{"alpha": {"db", "web"}, "beta": {"web"}} {
		folder := filepath.Join(dir, "hosts", name)
		h.Must(t, 0, "validate", "-f", folder)
		built, err := os.ReadFile(filepath.Join(folder, "vms.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, m := range regexp.MustCompile(`(?m)^  name: (.*)$`).FindAllSubmatch(built, -1) {
			found = append(found, string(m[1]))
		}
		if diff := cmp.Diff(machines, found); diff != "" {
			t.Errorf("machines of %s (-want +got):\n%s", name, diff)
		}
		t.Run(name+" as kustomize builds it", func(t *testing.T) {
			kustomize, err := exec.LookPath("kustomize")
			if err != nil {
				t.Skip("kustomize is not installed: what is checked in is not compared with what it builds")
			}
			now, err := exec.Command(kustomize, "build", filepath.Join(dir, "overlays", name)).Output()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(now), string(built)); diff != "" {
				t.Errorf("hosts/%s/vms.yaml is not what kustomize builds (-built +checked in):\n%s", name, diff)
			}
		})
	}
}

func TestKustomize_sourceFolder_isRefusedInWords(t *testing.T) {
	t.Parallel()
	h := host.New(t, binary)
	for _, part := range []string{"overlays/alpha", "base", "."} {
		_, stderr, code := h.Maqet(t, "validate", "-f", filepath.Join(repository(t), "examples/gitops/kustomize", part))
		if code != 3 || !strings.Contains(stderr, "this is a file of kustomize, which maqet does not run") {
			t.Errorf("%s: exit code %d, stderr:\n%s", part, code, stderr)
		}
	}
}
