package reconcile

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// Watcher tells of events of one machine's QEMU. Watch returns when the process
// has ended, when it cannot be listened to, or when ctx ends; hints are only
// hints, and hint never blocks.
type Watcher interface {
	Watch(ctx context.Context, name string, hint func(driver.Hint)) error
}

// ControllerConfig is what a Controller works with.
type ControllerConfig struct {
	Engine *Engine
	// Load is manifest.Load and manifest.Admit. The error is a manifest.Errors
	// when files or objects are at fault, and then comes with what was valid.
	Load func(ctx context.Context) (*manifest.Set, error)
	// Changes tells that the folder may have changed; nil when nothing tells.
	Changes <-chan struct{}
	// Records tells that the records may have changed, by whoever; nil when nothing
	// tells: then what other processes write is noticed at the next resync.
	Records <-chan struct{}
	// Watcher tells of events of QEMU; nil leaves it to exits and the resync.
	Watcher Watcher
	// Options are the owner, what may be pruned, and what the machines' passes
	// may do. DryRun, Wait and Timeout mean nothing here.
	Options ApplyOptions
	// Workers is how many machines are looked at or changed at once; 0 is 32.
	Workers int
	// Resync is when everything is looked at again although nothing told of a
	// change; 0 takes it from the engine's timing table.
	Resync time.Duration
	// Status is told how the controller is, whenever that changes and at each
	// resync, one call at a time; nil discards.
	Status func(ControllerStatus)
	// Log gets what changed; nil discards.
	Log *slog.Logger
}

// The types of a controller's own conditions.
const (
	// ConditionStateNotWritten is a state dir that takes nothing: what has to be
	// remembered is in memory only.
	ConditionStateNotWritten = "StateNotWritten"
	// ConditionManifestsIncomplete is a listing that proves no absence, since
	// files or folders could not be read or are at fault.
	ConditionManifestsIncomplete = "ManifestsIncomplete"
	// ConditionPruneRefused is a prune that would delete more than it may.
	ConditionPruneRefused = "PruneRefused"
)

// ControllerStatus is how a controller is.
type ControllerStatus struct {
	// Machines counts those that are supervised, Phases by phase.
	Machines int           `json:"machines"`
	Phases   map[Phase]int `json:"phases,omitempty"`
	// Ready counts the machines that are Ready.
	Ready int `json:"ready"`
	// Synced is when the manifests were last read.
	Synced time.Time `json:"synced,omitzero"`
	// Faults are what is wrong with the manifests.
	Faults []string `json:"faults,omitempty"`
	// Conditions are those of the controller itself, while they are true.
	Conditions []state.Condition `json:"conditions,omitempty"`
}

// Controller keeps all machines of a host as they should be. It goes by looking
// alone: whatever it is told of only makes it look, so that an event that is
// lost or comes twice changes nothing.
type Controller struct {
	cfg    ControllerConfig
	engine *Engine
	// taker takes what the manifests say.
	taker  *Engine
	memory *memory
	// witness knows what other processes have written.
	witness *witness
	log     *slog.Logger
	queue   workqueue.TypedRateLimitingInterface[string]
	// again wakes whoever reads the manifests, everything whoever looks at all machines.
	again, everything chan struct{}
	// turned is told whenever a worker has ended a turn.
	turned chan struct{}
	// goroutines are all that Run started.
	goroutines sync.WaitGroup

	mu       sync.Mutex
	machines map[string]*supervised
	// fetches are the images that machines wait for, by fetchKey.
	fetches map[string]*fetch
	// backingUp are the machines that a backup is made of, and backups lets few go on at
	// once.
	backingUp map[string]bool
	backups   chan struct{}
	// synced and faults are of the last reading of the manifests, conditions
	// those that are true, by type.
	synced     time.Time
	faults     []string
	conditions map[string]state.Condition
	// telling lets one status at a time through; told is the last one.
	telling sync.Mutex
	told    ControllerStatus
}

// supervised is what the controller knows of one machine besides the records:
// nothing that may not be forgotten.
type supervised struct {
	phase Phase
	ready bool
	// looked is when the last pass ended.
	looked time.Time
	// process is when the process was started that the following is about.
	process time.Time
	// listening is true while the watcher has the machine, and stop ends that. Deaf
	// counts how often it gave up in a row, and listenAfter is when it may be asked again.
	listening   bool
	stop        context.CancelFunc
	deaf        int
	listenAfter time.Time
	// awaited is what is waited for besides, cancel ends that.
	awaited driver.Awaited
	cancel  context.CancelFunc
	// hasty tells that the last wait was over at once.
	hasty bool
}

// defaultWorkers is how many machines are looked at at once. One that does not
// answer keeps a worker for the deadline of the look only.
const defaultWorkers = 32

// NewController makes a controller, whose Run has to be called.
func NewController(cfg ControllerConfig) *Controller {
	t := cfg.Engine.cfg.Timing
	cfg.Workers = cmp.Or(cfg.Workers, defaultWorkers)
	cfg.Resync = cmp.Or(cfg.Resync, t.Resync)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Options.Options.Supervise = true
	c := &Controller{
		cfg: cfg, log: cfg.Log, again: make(chan struct{}, 1), everything: make(chan struct{}, 1), turned: make(chan struct{}, 1),
		machines: map[string]*supervised{}, fetches: map[string]*fetch{}, backingUp: map[string]bool{}, backups: make(chan struct{}, maxBackups), conditions: map[string]state.Condition{},
	}
	c.queue = newQueue(workqueue.NewTyped[string](), t)
	own := cfg.Engine.cfg
	c.witness = newWitness(own.Store)
	c.memory = newMemory(c.witness, c.stateWritten)
	// The controller is the watch that others look for.
	own.Store, own.Live = c.memory, nil
	c.engine = NewEngine(own)
	// What is wanted has to last: a machine that only memory knows would be
	// nobody's when the controller is gone.
	own.Store = lasting{c.memory}
	c.taker = NewEngine(own)
	return c
}

// newQueue makes a queue of names around one that gives each name to one worker at
// a time.
func newQueue(names workqueue.TypedInterface[string], t timing.Table) workqueue.TypedRateLimitingInterface[string] {
	later := workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[string]{Queue: names})
	limit := workqueue.NewTypedItemExponentialFailureRateLimiter[string](t.Backoff, t.BackoffMax)
	return workqueue.NewTypedRateLimitingQueueWithConfig(limit, workqueue.TypedRateLimitingQueueConfig[string]{DelayingQueue: later})
}
