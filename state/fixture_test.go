package state_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/internal/ending"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// patience bounds every wait of these tests; none of them takes that long.
const patience = 60 * time.Second

// fixture is a state dir and one process's store of it.
type fixture struct {
	*state.Store
	path, lock string
	log        *bytes.Buffer
}

func newFixture(tb testing.TB) *fixture {
	tb.Helper()
	return fixtureIn(tb, tb.TempDir())
}

func fixtureIn(tb testing.TB, dir string) *fixture {
	tb.Helper()
	f := &fixture{path: filepath.Join(dir, "state.db"), lock: filepath.Join(dir, "locks", "db.lock"), log: &bytes.Buffer{}}
	f.Store = f.another(tb)
	return f
}

// another is the store of another process, as far as that matters: it shares
// nothing with the first but the files and the log.
func (f *fixture) another(tb testing.TB) *state.Store {
	tb.Helper()
	table := timing.Default()
	table.Lock = patience
	s := state.New(state.Config{
		Path: f.path, LockPath: f.lock, Locks: filelock.New(), Timing: table,
		Log: slog.New(slog.NewTextHandler(f.log, nil)),
	})
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// machine is a record in which every field is set.
func machine(name string) *state.Machine {
	at := time.Date(2026, 5, 4, 3, 2, 1, 987654321, time.UTC)
	return &state.Machine{
		Object: manifest.VirtualMachine{
			APIVersion: manifest.APIVersion, Kind: manifest.KindVirtualMachine,
			Metadata: manifest.Metadata{Name: name, Labels: map[string]string{"tier": "front"}},
			Spec: manifest.VirtualMachineSpec{
				PowerState: manifest.PowerRunning,
				Memory:     &manifest.Memory{Size: 512 << 20},
				Disks:      []manifest.Disk{{Name: "root", Size: 20 << 30, Bus: manifest.BusVirtio}},
				Shutdown:   &manifest.Shutdown{Timeout: manifest.DefaultShutdownTimeout},
			},
		},
		Owner: "/srv/vms", Source: "/srv/vms/" + name + ".yaml", Generation: 3,
		Digest: strings.Repeat("0123456789abcdef", 4), UID: "6f1ed002-ab5c-4c5b-9b0d-1d4e5f6a7b8c",
		Created: at, Updated: at.Add(time.Hour),
		Hold:     &state.Hold{PowerState: manifest.PowerStopped, Who: "ann", Why: "repair", Since: at, Generation: 3},
		Deleting: &state.Deletion{Since: at, Who: "bob", DeleteDisks: true, Prune: true},
		Restarts: 2, Starts: 5,
		Recreate:        map[string]state.Recreation{"root": {From: "sha256:aa", To: "sha256:bb", Since: at, Who: "ann"}},
		LastTermination: &state.Termination{Cause: ending.Crash, At: at, Boot: "b", Exit: "signal 6", LastLine: "qemu: \"oh\"", Generation: 2},
		Conditions:      []state.Condition{{Type: "Ready", Status: "False", Reason: "Stopped", LastTransitionTime: at, ObservedGeneration: 3}},
	}
}

func snapshot(name, vm string) *state.Snapshot {
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	return &state.Snapshot{
		Object: manifest.Snapshot{
			APIVersion: manifest.APIVersion, Kind: manifest.KindSnapshot,
			Metadata: manifest.Metadata{Name: name},
			Spec:     manifest.SnapshotSpec{VirtualMachine: vm, Method: manifest.SnapshotDisk, Deadline: manifest.DefaultSnapshotDeadline},
		},
		Owner: "/srv/vms", Generation: 1, Digest: "d", Created: at, TakenUID: "u", TakenAt: at, Failed: "no",
	}
}

func image(name string) *state.Image {
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	return &state.Image{
		Object: manifest.Image{
			APIVersion: manifest.APIVersion, Kind: manifest.KindImage, Metadata: manifest.Metadata{Name: name},
			Spec: manifest.ImageSpec{Source: "/srv/disk.qcow2", SHA256: strings.Repeat("0123456789abcdef", 4), Format: manifest.FormatQcow2},
		},
		Owner: "/srv/vms", Source: "/srv/vms/images.yaml", Generation: 2, Digest: "d", Created: at, Updated: at.Add(time.Hour),
	}
}

// put stores machines of these names, each in a transaction of its own.
func (f *fixture) put(tb testing.TB, names ...string) {
	tb.Helper()
	for _, name := range names {
		mustUpdate(tb, f.Store, func(tx *state.Tx) error { return tx.PutMachine(machine(name)) })
	}
}

func mustUpdate(tb testing.TB, s *state.Store, fn func(*state.Tx) error) {
	tb.Helper()
	if err := s.Update(tb.Context(), fn); err != nil {
		tb.Fatalf("Update: %v", err)
	}
}

func mustView(tb testing.TB, s *state.Store, fn func(*state.Tx) error) {
	tb.Helper()
	if err := s.View(tb.Context(), fn); err != nil {
		tb.Fatalf("View: %v", err)
	}
}

// machines reads all machines, and what the transaction warned of.
func machines(tb testing.TB, s *state.Store) (all []*state.Machine, warnings []error) {
	tb.Helper()
	mustView(tb, s, func(tx *state.Tx) (err error) {
		warnings = tx.Warnings()
		all, err = tx.Machines()
		return err
	})
	return all, warnings
}

func names(all []*state.Machine) []string {
	names := make([]string, len(all))
	for i, m := range all {
		names[i] = m.Object.Metadata.Name
	}
	return names
}

// asides are the databases that were set aside.
func (f *fixture) asides(tb testing.TB) []string {
	tb.Helper()
	found, err := filepath.Glob(f.path + ".damaged-*")
	if err != nil {
		tb.Fatal(err)
	}
	return found
}

func readFile(tb testing.TB, path string) []byte {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func writeFile(tb testing.TB, path string, data []byte) {
	tb.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// wantError checks the type of an error, its cause and that it helps.
func wantError(tb testing.TB, err, cause error, says ...string) {
	tb.Helper()
	var typed *state.Error
	if !errors.As(err, &typed) || !errors.Is(err, cause) {
		tb.Fatalf("got %v, want a state.Error of %v", err, cause)
	}
	for _, want := range says {
		if !strings.Contains(err.Error(), want) {
			tb.Errorf("%q does not say %q", err, want)
		}
	}
}

func within(tb testing.TB, d time.Duration) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), d)
	tb.Cleanup(cancel)
	return ctx
}
