package reconcile

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// benchMachines is how many machines a controller keeps in the benchmarks.
const benchMachines = 1000

// benchWorld is a controller over many simulated machines, which run and are as
// their manifests say, with a database of its own.
type benchWorld struct {
	controller *Controller
	names      []string
	set        *manifest.Set
	// looks counts looks at machines, loads readings of the manifests.
	looks, loads atomic.Int64
	// news wakes whoever waits for one of them.
	news chan struct{}
}

func newBenchWorld(b *testing.B) *benchWorld {
	b.Helper()
	dir := b.TempDir()
	store := state.New(state.Config{Path: filepath.Join(dir, "state.db"), LockPath: filepath.Join(dir, "db.lock")})
	host := newSimHost()
	host.startTakes = 0
	w := &benchWorld{news: make(chan struct{}, 1)}
	var objects []any
	for i := range benchMachines {
		vm := newVM(fmt.Sprintf("vm%04d", i), rich)
		w.names, objects = append(w.names, vm.Metadata.Name), append(objects, vm)
	}
	w.set = setOf(objects...)
	engine := NewEngine(Config{Ports: host.ports(), Store: StoreOf(store), Timing: timing.Default(), Who: "watch", BootID: "boot-1"})
	if report, err := engine.Apply(b.Context(), w.set, ApplyOptions{}); err != nil || report.Failed {
		b.Fatalf("apply: %+v %v", report, err)
	}
	host.observed = func(string) { w.count(&w.looks) }
	load := func(context.Context) (*manifest.Set, error) {
		w.count(&w.loads)
		return w.set, nil
	}
	w.controller = NewController(ControllerConfig{Engine: engine, Load: load, Workers: runtime.GOMAXPROCS(0), Resync: time.Hour})
	ctx, cancel := context.WithCancel(b.Context())
	var ended sync.WaitGroup
	ended.Go(func() {
		if err := w.controller.Run(ctx); err != nil {
			b.Errorf("run: %v", err)
		}
	})
	b.Cleanup(func() {
		cancel()
		ended.Wait()
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	w.await(b, &w.looks, benchMachines)
	return w
}

func (w *benchWorld) count(what *atomic.Int64) {
	what.Add(1)
	nudge(w.news)
}

// await waits until something has happened so often.
func (w *benchWorld) await(b *testing.B, what *atomic.Int64, times int64) {
	b.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for what.Load() < times {
		select {
		case <-w.news:
		case <-limit.C:
			b.Fatalf("%d of %d within a minute", what.Load(), times)
		}
	}
}

// measure does something again and again, and reports the processor time that it
// takes, which the wall's clock does not tell where several cores work.
func (w *benchWorld) measure(b *testing.B, do func()) {
	b.Helper()
	b.ReportAllocs()
	before := processTime(b)
	for b.Loop() {
		do()
	}
	b.ReportMetric(float64(processTime(b)-before)/float64(time.Millisecond)/float64(b.N), "cpu-ms/op")
}

func processTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkController_resync_1000 is a look at every machine, none of which needs
// anything. A watch takes it every five minutes, 10 ms apart each.
func BenchmarkController_resync_1000(b *testing.B) {
	w := newBenchWorld(b)
	w.measure(b, func() {
		from := w.looks.Load()
		for _, name := range w.names {
			w.controller.Poke(name)
		}
		w.await(b, &w.looks, from+benchMachines)
	})
}

// BenchmarkController_unchangedManifests_1000 is what a change in the folder costs
// beyond reading its files, when none of its objects differs.
func BenchmarkController_unchangedManifests_1000(b *testing.B) {
	w := newBenchWorld(b)
	f := &follower{Controller: w.controller}
	w.measure(b, func() {
		if next := f.read(b.Context()); next != w.controller.cfg.Resync {
			b.Fatalf("read again in %s: %v", next, w.controller.status())
		}
	})
}

// BenchmarkController_memory_1000 reports what a controller keeps in memory for
// its machines while nothing happens.
func BenchmarkController_memory_1000(b *testing.B) {
	before := heap()
	w := newBenchWorld(b)
	// The simulated host and the manifests are in it, too, as no real host is.
	used := float64(heap()-before) / 1e6
	for b.Loop() {
		if s := w.controller.status(); s.Machines != benchMachines || s.Phases[PhaseRunning] != benchMachines {
			b.Fatalf("%+v", s)
		}
	}
	b.ReportMetric(used, "MB-heap")
	b.ReportMetric(float64(runtime.NumGoroutine()), "goroutines")
}

// heap is what is in use on the heap after everything else was collected.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
