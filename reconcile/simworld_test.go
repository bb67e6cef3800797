package reconcile

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

// simWorld is a host with a folder, people and a controller, all of which may
// do or suffer anything. Which, is drawn from one seed.
type simWorld struct {
	t   *testing.T
	rnd *rand.Rand
	// turns orders what happens in one instant; nil in a world that leaves it to chance.
	turns *simTurns
	host  *simHost
	disk  *memStore
	// files are the folder's, by name; gone is true while the folder is not there.
	files map[string]*simFile
	gone  bool
	// changes tells the controller of the folder.
	changes chan struct{}
	opt     ApplyOptions
	process *simProcess
	people  sync.WaitGroup
	// boot counts boots of the host, lives the controllers, said what people said.
	boot, lives, said int
	// absent is since when no file has had a machine, present since when one has;
	// whole and partial are since when the folder could be read and could not.
	absent, present map[string]time.Time
	whole, partial  time.Time
	// pruned are the deletes that were judged already, by machine.
	pruned map[string]time.Time
	// lossy makes the watcher lose hints.
	lossy atomic.Bool
	made  int

	mu     sync.Mutex
	status ControllerStatus
	trail  []string
	broken []string
}

// simFile is a file of the folder.
type simFile struct {
	vms    map[string]*manifest.VirtualMachine
	snaps  map[string]*manifest.Snapshot
	broken bool
}

func (w *simWorld) log(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trail = append(w.trail, time.Since(t0Sim).String()+" "+fmt.Sprintf(format, args...))
}

// t0Sim is when the time of a bubble begins.
var t0Sim = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// breaks notes a law that does not hold.
func (w *simWorld) breaks(format string, args ...any) {
	w.log("LAW "+format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = append(w.broken, fmt.Sprintf(format, args...))
}

func (w *simWorld) bootID() string { return fmt.Sprintf("boot-%d", w.boot) }

// cli is an engine of a person's command.
func (w *simWorld) cli() *Engine {
	return NewEngine(Config{Ports: w.host.ports(), Store: w.disk, Timing: timing.Default(), Who: "ann", BootID: w.bootID()})
}

// load reads the folder as manifest.Load and manifest.Admit do.
func (w *simWorld) load(ctx context.Context) (*manifest.Set, error) {
	w.turns.wait(ctx, "load")
	w.mu.Lock()
	defer w.mu.Unlock()
	set := &manifest.Set{Roots: []string{"/vms"}, Complete: true}
	var faults manifest.Errors
	if w.gone {
		set.Complete = false
		return set, manifest.Errors{{Position: manifest.Position{File: "/vms"}, Msg: "cannot be read"}}
	}
	objects := map[string]*manifest.Object{}
	for _, file := range slices.Sorted(maps.Keys(w.files)) {
		f := w.files[file]
		at := manifest.Position{File: "/vms/" + file, Line: 1, Column: 1}
		if f.broken {
			faults = append(faults, &manifest.Error{Position: at, Msg: "does not parse"})
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(f.vms)) {
			o, err := manifest.NewObject(f.vms[name].DeepCopy())
			if err != nil {
				return nil, err
			}
			o.Position = at
			if objects[name] != nil {
				faults = append(faults, &manifest.Error{Position: at, Msg: name + " is declared twice", Conflict: []manifest.ObjectKey{o.Key()}})
				continue
			}
			objects[name] = o
		}
	}
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		set.Objects = append(set.Objects, objects[name])
	}
	// What Admit finds makes no listing incomplete.
	set.Complete = len(faults) == 0
	snaps, more, err := w.loadSnapshots(objects)
	if err != nil {
		return nil, err
	}
	set.Objects, faults = append(set.Objects, snaps...), append(faults, more...)
	if len(faults) > 0 {
		return set, faults
	}
	return set, nil
}

// loadSnapshots are the snapshots of the good files. One whose machine is in no
// good file is a conflict of its own.
func (w *simWorld) loadSnapshots(machines map[string]*manifest.Object) (objects []*manifest.Object, faults manifest.Errors, err error) {
	for _, file := range slices.Sorted(maps.Keys(w.files)) {
		f := w.files[file]
		for _, name := range slices.Sorted(maps.Keys(f.snaps)) {
			if f.broken {
				continue
			}
			o, err := manifest.NewObject(f.snaps[name].DeepCopy())
			if err != nil {
				return nil, nil, err
			}
			o.Position = manifest.Position{File: "/vms/" + file, Line: 9, Column: 1}
			objects = append(objects, o)
			if machines[o.Snapshot.Spec.VirtualMachine] == nil {
				faults = append(faults, &manifest.Error{Position: o.Position, Msg: "no such machine", Conflict: []manifest.ObjectKey{o.Key()}})
			}
		}
	}
	slices.SortFunc(objects, func(a, b *manifest.Object) int { return strings.Compare(a.Key().Name, b.Key().Name) })
	return objects, faults, nil
}

// declared tells whether any file, broken ones as they were, has the machine.
func (w *simWorld) declared(name string) bool {
	for _, f := range w.files {
		if f.vms[name] != nil {
			return true
		}
	}
	return false
}

// newSimWorld is a world without machines, in which nothing happens yet.
func newSimWorld(t *testing.T, seed uint64) *simWorld {
	return &simWorld{
		t: t, host: newSimHost(), disk: newMemStore(), files: map[string]*simFile{},
		rnd:     rand.New(rand.NewPCG(seed, seed)), //nolint:gosec // chance that can be repeated is what is wanted.
		changes: make(chan struct{}, 1), absent: map[string]time.Time{}, present: map[string]time.Time{},
		pruned: map[string]time.Time{}, opt: ApplyOptions{Owner: "/vms"},
	}
}

// inSim runs a world drawn from a seed in a bubble of its own time.
func inSim(t *testing.T, seed uint64, run func(w *simWorld)) (w *simWorld) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w = newSimWorld(t, seed)
		w.inOrder(seed)
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			w.turns.run(stop)
		}()
		w.opt.Prune, w.opt.PruneAll = w.rnd.IntN(2) == 0, w.rnd.IntN(4) == 0
		w.opt.Options.AllowRestart = w.rnd.IntN(3) == 0
		w.host.readyTakes = 20 * time.Second
		for range 3 {
			w.addMachine()
		}
		w.begin()
		run(w)
		w.people.Wait()
		w.end()
		close(stop)
		<-stopped
	})
	return w
}

// settle waits until everybody waits for time to pass.
func (w *simWorld) settle() {
	if w.turns == nil {
		synctest.Wait()
		return
	}
	w.turns.wait(named(w.t.Context(), simHand), "")
}

// inOrder makes all that happens in one instant happen in an order drawn from the seed.
func (w *simWorld) inOrder(seed uint64) {
	w.turns = newSimTurns(rand.New(rand.NewPCG(seed, 1))) //nolint:gosec // chance that can be repeated is what is wanted.
	w.host.turns, w.disk.turns = w.turns, w.turns
}

// TestController_simulatedWorld_isTheSameInEveryRun is what a replay relies on.
func TestController_simulatedWorld_isTheSameInEveryRun(t *testing.T) {
	const seed, steps = 5, 100
	first := simulate(t, seed, steps)
	if len(first) < steps {
		t.Fatalf("%d steps left a trail of %d lines", steps, len(first))
	}
	for range 2 {
		if diff := cmp.Diff(first, simulate(t, seed, steps)); diff != "" {
			t.Fatalf("the world of seed %d went another way (-first +again):\n%s", seed, diff)
		}
	}
}
