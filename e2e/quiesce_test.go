package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maqet/maqet/driver/qga"
	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
)

// freezing is a machine with a file system on a disk, whose guest has an agent.
type freezing struct {
	*host.Host
	t   *testing.T
	dir string
	at  layout.Layout
	// text is its manifest.
	text string
}

func newFreezing(t *testing.T) *freezing {
	t.Helper()
	g := guest.AgentPath(t)
	h := host.New(t, binary)
	f := &freezing{Host: h, t: t, dir: t.TempDir(), at: layout.Layout{State: h.State, Run: h.Run}}
	text := fmt.Sprintf(`apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata: {name: web}
spec:
  machine: {type: q35}
  memory: {size: 160Mi}
  boot: {kernel: {image: %s, initrd: %s, cmdline: %q}}
  disks: [{name: data, size: 32Mi}]
  guestAgent: {}
  readiness: {guestAgent: {}}
`, g.Kernel, g.Initrd, g.Cmdline)
	f.text = text
	if err := os.WriteFile(filepath.Join(f.dir, "web.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f.Must(t, 0, "apply", "-f", f.dir, "--wait")
	f.Must(t, 0, "exec", "web", "--", "sh", "-c", "mke2fs /dev/vda && mount -t ext2 /dev/vda /mnt")
	return f
}

// killedFrozen begins a snapshot, and kills maqet between the freeze and QEMU's
// transaction: for that it has to go through the lock of the cli socket, which is
// taken from it. False is a maqet that was faster, or was killed before it had frozen.
func (f *freezing) killedFrozen(tag string) bool {
	f.t.Helper()
	cmd := f.Command("snapshot", "create", "web", tag, "--method", "Disk", "--quiesce", "Required")
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	locks := filelock.New()
	for !f.marked() {
		select {
		case err := <-ended:
			f.t.Logf("snapshot %s was over before it was seen (%v)", tag, err)
			return false
		case <-f.t.Context().Done():
			f.t.Fatal("the test is over")
		default:
		}
	}
	lock, err := locks.Lock(f.t.Context(), f.at.CLILock("web"))
	if err != nil {
		f.t.Fatal(err)
	}
	between := f.marked()
	if err := cmd.Process.Kill(); err != nil && cmd.ProcessState == nil {
		f.t.Fatal(err)
	}
	if err := <-ended; err == nil {
		f.t.Logf("snapshot %s was over before it was killed", tag)
	}
	if err := lock.Unlock(); err != nil {
		f.t.Fatal(err)
	}
	return between && f.frozen()
}

// marked tells whether a freeze is marked.
func (f *freezing) marked() bool {
	_, err := os.Stat(f.at.Frozen("web"))
	return err == nil
}

// frozen asks the agent.
func (f *freezing) frozen() bool {
	f.t.Helper()
	frozen := false
	if !host.Eventually(host.Settle, func() bool {
		c, err := qga.Dial(f.t.Context(), f.at.AgentSocket("web"), qga.Options{})
		if err != nil {
			return false // it may be writing out what is cached
		}
		defer func() { _ = c.Close() }() // it was asked all there is
		frozen, err = c.Frozen(f.t.Context())
		return err == nil
	}) {
		f.t.Fatal("the agent does not answer")
	}
	return frozen
}

// TestQuiesce_killedBetweenFreezeAndThaw_isThawedByWhoeverComesNext also has the
// snapshot taken by them, which is quiesced in the end.
func TestQuiesce_killedBetweenFreezeAndThaw_isThawedByWhoeverComesNext(t *testing.T) {
	f := newFreezing(t)
	rounds := map[string]func(){
		"apply": func() {
			if out := f.Must(t, 0, "apply", "-f", f.dir); !strings.Contains(out, "thawed the guest's file systems") {
				t.Errorf("apply said:\n%s", out)
			}
		},
		"watch": func() {
			w := f.Watch(t, f.dir)
			if !host.Eventually(host.Settle, func() bool { return !f.marked() }) {
				t.Errorf("a watch does not thaw:\n%s", w.Log())
			}
			f.Must(t, 0, "wait", "web", "--for=condition=Ready")
			w.End(t)
		},
	}
	for who, comes := range rounds {
		const most = 30
		killed := ""
		for i := range most {
			tag := fmt.Sprintf("%s-%d", who, i)
			if f.killedFrozen(tag) {
				killed = tag
				break
			}
			f.Must(t, 0, "apply", "-f", f.dir)
		}
		if killed == "" {
			t.Fatalf("%s: in %d rounds maqet was never killed while the guest was frozen", who, most)
		}
		comes()
		if f.frozen() || f.marked() {
			t.Errorf("%s: the guest is frozen still, marked: %v", who, f.marked())
		}
		f.Must(t, 0, "exec", "web", "--timeout", "2m", "--", "touch", "/mnt/"+who)
		f.Must(t, 0, "apply", "-f", f.dir)
		if list := f.Must(t, 0, "snapshot", "list", "web"); !strings.Contains(quiescedTags(list), " "+killed+" ") {
			t.Errorf("%s: %s is not quiesced:\n%s", who, killed, list)
		}
	}
}

// quiescedTags are the tags of a list that are quiesced, with spaces around them.
func quiescedTags(list string) string {
	tags := " "
	for line := range strings.Lines(list) {
		if words := strings.Fields(line); strings.Contains(line, " Quiesced ") {
			tags += words[0] + " "
		}
	}
	return tags
}
