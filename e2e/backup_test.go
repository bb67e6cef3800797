package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
)

// backupRun is what maqet backup list -o json tells of a run.
type backupRun struct {
	ID, Type, Parent, Consistency, Why, Folder, Broken string
}

// backupsOf are the backups of a machine, oldest first.
func backupsOf(t *testing.T, h *host.Host, vm string) []backupRun {
	t.Helper()
	var runs []backupRun
	if err := json.Unmarshal([]byte(h.Must(t, 0, "backup", "list", vm, "-o", "json")), &runs); err != nil {
		t.Fatal(err)
	}
	return runs
}

// backedUp is the newest backup of a machine, which must be of that type.
func backedUp(t *testing.T, h *host.Host, vm, want string) backupRun {
	t.Helper()
	h.Must(t, 0, "backup", "now", vm)
	runs := backupsOf(t, h, vm)
	last := runs[len(runs)-1]
	if last.Type != want {
		t.Errorf("it is %s (%s), want %s", last.Type, last.Why, want)
	}
	return last
}

// TestBackup_guestWithAnAgent_findsItsFilesAgain has a chain of three, of which the guest
// gets the second back (in soak each).
func TestBackup_guestWithAnAgent_findsItsFilesAgain(t *testing.T) {
	t.Parallel()
	f := newFreezing(t)
	target := t.TempDir()
	put(t, filepath.Join(f.dir, "web.yaml"), f.text+"  backup: {target: "+target+", quiesce: Required}\n")
	f.Must(t, 0, "apply", "-f", f.dir)
	sh := func(line string) string { return f.Must(t, 0, "exec", "web", "--", "sh", "-c", line) }
	words := []string{"one", "two", "three"}
	runs := make([]backupRun, len(words))
	for i, word := range words {
		sh("echo " + word + " >/mnt/word; head -c 300000 /dev/urandom >/mnt/noise-" + word + "; md5sum /mnt/noise-* >/mnt/sums")
		want := "Incremental"
		if i == 0 {
			want = "Full"
		}
		if runs[i] = backedUp(t, f.Host, "web", want); runs[i].Consistency != "Quiesced" {
			t.Errorf("%s is %s", runs[i].ID, runs[i].Consistency)
		}
	}
	f.Must(t, 0, "backup", "verify", "web", "--restore")
	which := []int{1}
	if os.Getenv("MAQET_SOAK") != "" {
		which = []int{1, 2, 0}
	}
	for _, i := range which {
		f.Must(t, 0, "stop", "web", "--force")
		f.Must(t, 0, "backup", "restore", "web", runs[i].ID, "--no-safety")
		f.Must(t, 0, "start", "web")
		f.Must(t, 0, "wait", "web", "--for=condition=Ready")
		if got := sh("mount -t ext2 /dev/vda /mnt && md5sum -c /mnt/sums >/dev/null && cat /mnt/word"); got != words[i]+"\n" {
			t.Errorf("backup %d holds %q, want %q", i, got, words[i])
		}
	}
}

// bare is a machine without a guest whose disk the test writes to.
type bare struct {
	*host.Host
	t      *testing.T
	target string
}

func newBare(t *testing.T, backup string) *bare {
	t.Helper()
	b := &bare{Host: host.New(t, binary), t: t, target: t.TempDir()}
	dir := t.TempDir()
	put(t, filepath.Join(dir, "web.yaml"), fmt.Sprintf(`apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata: {name: web}
spec:
  machine: {type: q35}
  memory: {size: 32Mi}
  disks: [{name: data, size: 16Mi}]
  backup: {target: %s%s}
`, b.target, backup))
	b.Must(t, 0, "apply", "-f", dir)
	return b
}

// writes writes a number to a place of the disk.
func (b *bare) writes(n int) {
	b.t.Helper()
	command := fmt.Sprintf(`command-line=qemu-io -d /machine/peripheral/data/virtio-backend "write -P %d %dk 64k"`, n, 64*n)
	if said := b.Must(b.t, 0, "qmp", "web", "human-monitor-command", "--allow-dangerous", "--arg", command); said != "\"\"\n" {
		b.t.Fatalf("write: %s", said)
	}
}

// holds fails when a run does not hold what was written up to a number.
func (b *bare) holds(run backupRun, n int) {
	b.t.Helper()
	args := []string{"-r", "-f", "qcow2"}
	for i := 1; i <= n; i++ {
		args = append(args, "-c", fmt.Sprintf("read -P %d %dk 64k", i, 64*i))
	}
	out, err := exec.Command("qemu-io", append(args, filepath.Join(run.Folder, "data.qcow2"))...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", run.ID, err, out)
	}
}

// nothingElse fails when QEMU or the target has anything but complete runs.
func (b *bare) nothingElse(last backupRun) {
	b.t.Helper()
	if out := b.Must(b.t, 0, "qmp", "web", "query-jobs"); strings.TrimSpace(out) != "[]" {
		b.t.Errorf("jobs are left: %s", out)
	}
	nodes := b.Must(b.t, 0, "qmp", "web", "query-named-block-nodes", "--arg", "flat=true")
	if strings.Contains(nodes, `"maqet-backup-`) && strings.Count(nodes, `"maqet-backup-`) != strings.Count(nodes, `"maqet-backup-`+last.ID+`"`) {
		b.t.Errorf("nodes or bitmaps are left:\n%s", nodes)
	}
	all, err := filepath.Glob(filepath.Join(b.target, "*", "*"))
	if err != nil {
		b.t.Fatal(err)
	}
	if runs := backupsOf(b.t, b.Host, "web"); len(all) != len(runs) {
		b.t.Errorf("the target has %q, of %d runs", all, len(runs))
	}
}

// TestBackup_killedAtRandomMoments_theNextIsWhole kills a backup 5 times (40 in soak) at
// moments spread over its run. The next one holds everything, and nothing is left of the
// one that was killed.
func TestBackup_killedAtRandomMoments_theNextIsWhole(t *testing.T) {
	t.Parallel()
	rounds := 5
	if os.Getenv("MAQET_SOAK") != "" {
		rounds = 40
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // moments, not secrets; a seed makes a failure repeatable
	b := newBare(t, "")
	b.writes(1)
	began := time.Now()
	backedUp(t, b.Host, "web", "Full")
	whole := time.Since(began)
	for n := 2; n < rounds+2; n++ {
		b.writes(n)
		cmd := b.Command("backup", "now", "web")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-time.After(time.Duration(random.Int64N(int64(whole)))):
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
		b.Must(t, 0, "backup", "now", "web")
		runs := backupsOf(t, b.Host, "web")
		last := runs[len(runs)-1]
		b.holds(last, n)
		b.nothingElse(last)
	}
	b.Must(t, 0, "backup", "verify", "web", "--restore")
}

// TestBackup_example_isMadeAndVerified applies the example with another target.
func TestBackup_example_isMadeAndVerified(t *testing.T) {
	t.Parallel()
	guest.Path(t)
	root, err := guest.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "examples", "backup", "ledger.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h, dir, target := host.New(t, binary), t.TempDir(), t.TempDir()
	changed := strings.NewReplacer("/srv/backups ", target+" ", "../../build", filepath.Join(root, "build")).Replace(string(text))
	if err := os.WriteFile(filepath.Join(dir, "ledger.yaml"), []byte(changed), 0o600); err != nil { //nolint:gosec // G703: the repository's own text
		t.Fatal(err)
	}
	h.Must(t, 0, "apply", "--wait", "-f", dir)
	h.Must(t, 0, "backup", "now", "ledger")
	h.Must(t, 0, "plan", "-f", dir)
	if runs := backupsOf(t, h, "ledger"); len(runs) != 1 || !strings.HasPrefix(runs[0].Folder, target) {
		t.Errorf("the runs are %+v", runs)
	}
	h.Must(t, 0, "backup", "verify", "ledger")
}
