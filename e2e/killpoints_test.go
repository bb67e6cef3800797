package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/e2e/internal/host"
	"github.com/maqet/maqet/internal/layout"
)

// killPoint is a moment in the middle of a command at which somebody is killed.
type killPoint struct {
	name    string
	command []string
	// reached tells that the command has come that far.
	reached func(k *killing) bool
	// qemu has QEMU killed, in place of maqet.
	qemu bool
}

// snapshotPoints are moments of commands about snapshots of the guest web, of which the
// snapshot full has memory and disk of the time v1. TAG is a name that was not used.
func snapshotPoints() []killPoint {
	full := []string{"snapshot", "create", "web", "TAG"}
	disk := []string{"snapshot", "create", "web", "TAG", "--method", "Disk"}
	del := []string{"snapshot", "delete", "web", "TAG"}
	load := []string{"snapshot", "restore", "web", "full", "--no-safety"}
	safe := []string{"snapshot", "restore", "web", "full"}
	cold := []string{"snapshot", "restore", "web", "full", "--no-safety", "--stop", "--disks-only"}
	return []killPoint{
		{name: "save/intentWritten", command: full, reached: (*killing).intended},
		{name: "save/jobCreated", command: full, reached: job("created")},
		{name: "save/guestStopped", command: full, reached: event("STOP")},
		{name: "save/jobConcluded", command: full, reached: job("concluded")},
		{name: "save/recordWritten", command: full, reached: (*killing).recorded},
		{name: "save/jobDismissed", command: full, reached: job("null")},
		{name: "disk/recordWritten", command: disk, reached: (*killing).recorded},
		{name: "delete/recordGone", command: del, reached: (*killing).unrecorded},
		{name: "delete/jobOrTagGone", command: del, reached: (*killing).untagged},
		{name: "load/intentWritten", command: load, reached: (*killing).intended},
		{name: "load/guestStopped", command: load, reached: event("STOP")},
		{name: "load/jobCreated", command: load, reached: job("created")},
		{name: "load/jobConcluded", command: load, reached: job("concluded")},
		{name: "load/jobDismissed", command: load, reached: job("null")},
		{name: "load/guestResumed", command: load, reached: event("RESUME")},
		{name: "safety/saving", command: safe, reached: job("created")},
		{name: "safety/recorded", command: safe, reached: (*killing).safetyRecorded},
		{name: "revert/machineDown", command: cold, reached: (*killing).down},
		{name: "save/qemuAtStop", command: full, reached: event("STOP"), qemu: true},
		{name: "load/qemuAtJob", command: load, reached: job("created"), qemu: true},
		{name: "load/qemuAtConclusion", command: load, reached: job("concluded"), qemu: true},
	}
}

// killing is one command in which somebody is killed.
type killing struct {
	*remembering
	at  layout.Layout
	tag string
	pid int
	// before are the snapshot records that there were before.
	before []string
	// heard are the events so far.
	heard  []qmp.Event
	events *qmp.Subscription
}

// event is reached when QEMU has sent an event of that name.
func event(name string) func(*killing) bool {
	return func(k *killing) bool {
		return slices.ContainsFunc(k.hear(), func(e qmp.Event) bool { return e.Name == name })
	}
}

// job is reached when a job of QEMU has come to that state.
func job(status string) func(*killing) bool {
	return func(k *killing) bool {
		return slices.ContainsFunc(k.hear(), func(e qmp.Event) bool {
			var data struct {
				Status string `json:"status"`
			}
			return e.Name == "JOB_STATUS_CHANGE" && json.Unmarshal(e.Data, &data) == nil && data.Status == status
		})
	}
}

// hear takes in what QEMU has sent.
func (k *killing) hear() []qmp.Event {
	for {
		select {
		case e, ok := <-k.events.C():
			if !ok {
				return k.heard
			}
			k.heard = append(k.heard, e)
		default:
			return k.heard
		}
	}
}

func (k *killing) intended() bool { return exists(k.at.Intent("web")) }

func (k *killing) recorded() bool { return exists(k.at.Snapshot("web", k.tag)) }

func (k *killing) unrecorded() bool { return !k.recorded() }

// untagged tells that the disk does not hold the snapshot any more.
func (k *killing) untagged() bool {
	return !slices.Contains(tagsOf(k.t, filepath.Join(k.State, "disks", "web", "data.qcow2")), k.tag)
}

// safetyRecorded tells that there is a record that there was not before.
func (k *killing) safetyRecorded() bool { return len(k.records()) > len(k.before) }

// down tells that the process is over.
func (k *killing) down() bool { return !slices.Contains(k.QEMUs()["web"], k.pid) }

// records are the snapshot records.
func (k *killing) records() []string {
	found, err := filepath.Glob(filepath.Join(k.at.SnapshotDir("web"), "*.json"))
	if err != nil {
		k.t.Fatal(err)
	}
	return found
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestSnapshots_killedAtNamedPoints_nothingIsLostOrLeft kills maqet, or QEMU, at 21
// moments of taking snapshots and going back to them.
func TestSnapshots_killedAtNamedPoints_nothingIsLostOrLeft(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	r.learn("v1")
	r.Must(t, 0, "snapshot", "create", "web", "full")
	for i, p := range snapshotPoints() {
		t.Run(p.name, func(t *testing.T) {
			r := &remembering{Host: r.Host, t: t, dir: r.dir}
			// A command may be over before the point was seen, on a computer that has other
			// things to do: then once more.
			for try := range 10 {
				r.learn("v2")
				if r.killedAt(p, fmt.Sprintf("t%d-%d", i, try)) {
					break
				}
				if try == 9 {
					t.Fatalf("the point was never seen before the command was over")
				}
				r.Must(t, 0, "apply", "-f", r.dir, "--wait")
			}
			r.converges()
		})
	}
}

// killedAt kills at a point. False is a command that was over first.
func (r *remembering) killedAt(p killPoint, tag string) bool {
	r.t.Helper()
	k := &killing{remembering: r, at: layout.Layout{State: r.State, Run: r.Run}, tag: tag, pid: r.PID(r.t, "web")}
	k.before = k.records()
	conn, err := qmp.Dial(r.t.Context(), k.at.QMPSocket("web"), qmp.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // it only listens
	k.events = conn.Subscribe()
	args := slices.Clone(p.command)
	if args[1] == "delete" {
		r.Must(r.t, 0, "snapshot", "create", "web", tag)
	}
	if i := slices.Index(args, "TAG"); i >= 0 {
		args[i] = tag
	}
	cmd := r.Command(args...)
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = cmd.Wait() // how it ends is checked by what it leaves
	}()
	for !p.reached(k) {
		select {
		case <-over:
			r.t.Logf("%s was over before the point was seen (%s)", strings.Join(args, " "), cmd.ProcessState)
			return p.reached(k)
		case <-r.t.Context().Done():
			r.t.Fatal("the test is over")
		default:
		}
	}
	if p.qemu {
		if err := syscall.Kill(k.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			r.t.Fatal(err)
		}
		<-over
		return true
	}
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		r.t.Fatal(err)
	}
	<-over
	return true
}

// converges insists that the next apply sees to everything: the guest runs, its disk and
// its memory are of one time, and nothing is left of what was going on.
func (r *remembering) converges() {
	t := r.t
	t.Helper()
	if !host.Eventually(host.Settle, func() bool { _, _, code := r.Maqet(t, "apply", "-f", r.dir, "--wait"); return code == 0 }) {
		t.Fatalf("apply does not settle:\n%s", r.Must(t, 0, "describe", "web"))
	}
	if d, m := r.onDisk(), r.inMemory(); d != m && m != "nothing" || d != "v1" && d != "v2" {
		t.Errorf("the guest has %q on disk and %q in memory", d, m)
	}
	if jobs := strings.TrimSpace(r.Must(t, 0, "qmp", "web", "query-jobs")); jobs != "[]" {
		t.Errorf("jobs are left: %s", jobs)
	}
	if exists(filepath.Join(r.Run, "web", "intent.json")) {
		t.Errorf("an intent is left")
	}
	if n := len(r.QEMUs()["web"]); n != 1 {
		t.Errorf("%d QEMUs run", n)
	}
	r.noTemporaryFiles()
	r.noStrayTags()
}

// noTemporaryFiles insists that no file is half made.
func (r *remembering) noTemporaryFiles() {
	r.t.Helper()
	err := filepath.WalkDir(filepath.Join(r.State, "disks"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && (strings.HasPrefix(d.Name(), ".new-") || strings.Contains(d.Name(), ".tmp")) {
			r.t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		r.t.Error(err)
	}
}

// noStrayTags insists that the disk holds those snapshots that maqet tells of, all taken.
func (r *remembering) noStrayTags() {
	r.t.Helper()
	var told []struct{ Name, Phase string }
	if err := json.Unmarshal([]byte(r.Must(r.t, 0, "snapshot", "list", "web", "-o", "json")), &told); err != nil {
		r.t.Fatal(err)
	}
	var names []string
	for _, s := range told {
		if s.Phase != "Taken" {
			r.t.Errorf("snapshot %s is %s", s.Name, s.Phase)
		}
		names = append(names, s.Name)
	}
	tags := tagsOf(r.t, filepath.Join(r.State, "disks", "web", "data.qcow2"))
	slices.Sort(names)
	if !slices.Equal(names, tags) {
		r.t.Errorf("the disk holds the snapshots %v, maqet tells of %v", tags, names)
	}
}

// tagsOf are the snapshots in a disk, sorted.
func tagsOf(t *testing.T, disk string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), host.Settle)
	defer cancel()
	text, err := exec.CommandContext(ctx, "qemu-img", "info", "-U", "--output=json", disk).Output()
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Snapshots []struct{ Name string }
	}
	if err := json.Unmarshal(text, &info); err != nil {
		t.Fatal(err)
	}
	var tags []string
	for _, s := range info.Snapshots {
		tags = append(tags, s.Name)
	}
	slices.Sort(tags)
	return tags
}
