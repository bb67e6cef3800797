package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// Config is what an engine works with.
type Config struct {
	Ports Ports
	// Store is StoreOf(a state.Store).
	Store  Store
	Timing timing.Table
	// Log gets what changed; nil discards.
	Log *slog.Logger
	// Who is written into intents, holds and deletions, such as "apply (pid 4711, uid 0)".
	Who string
	// BootID is the host's current boot id.
	BootID string
	// Report is told what happens, one call at a time; nil discards.
	Report func(Event)
	// Parallel is how many machines may be starting at once; 0 is 4.
	Parallel int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Engine brings machines to what they should be, one pass at a time.
type Engine struct{ cfg Config }

// NewEngine makes an engine; it starts nothing.
func NewEngine(cfg Config) *Engine { return &Engine{cfg: cfg} }

// OwnerOf is the owner of a set that names none: its roots.
func OwnerOf(set *manifest.Set) string { return "" }

// Apply makes the objects of a set the desired ones and converges their machines.
func (e *Engine) Apply(ctx context.Context, set *manifest.Set, opt ApplyOptions) (Report, error) {
	return Report{}, errors.ErrUnsupported
}

// Plan tells what Apply would do and touches nothing.
func (e *Engine) Plan(ctx context.Context, set *manifest.Set, opt ApplyOptions) (PlanReport, error) {
	return PlanReport{}, errors.ErrUnsupported
}

// Converge does passes over one machine until it settles.
func (e *Engine) Converge(ctx context.Context, name string, opt Options) (Result, error) {
	return Result{}, errors.ErrUnsupported
}

// Views looks at machines in parallel; without names at all of them.
func (e *Engine) Views(ctx context.Context, names []string, depth driver.Depth) ([]View, error) {
	return nil, errors.ErrUnsupported
}

// SetPower is start, stop, pause and resume: it writes a hold when the spec wants
// something else, or ends the hold when the spec wants just that, and converges.
func (e *Engine) SetPower(ctx context.Context, name string, req PowerRequest, opt Options) (Result, error) {
	return Result{}, errors.ErrUnsupported
}

// Restart stops a running machine once and starts it again.
func (e *Engine) Restart(ctx context.Context, name string, opt Options) (Result, error) {
	return Result{}, errors.ErrUnsupported
}

// Hold writes a hold; who, since and generation are filled in.
func (e *Engine) Hold(ctx context.Context, name string, hold state.Hold, opt Options) (Result, error) {
	return Result{}, errors.ErrUnsupported
}

// Release ends a machine's hold and converges.
func (e *Engine) Release(ctx context.Context, name string, opt Options) (Result, error) {
	return Result{}, errors.ErrUnsupported
}

// Delete stops a machine, forgets it, and keeps or deletes its disks.
func (e *Engine) Delete(ctx context.Context, name string, opt DeleteOptions) (Result, error) {
	return Result{}, errors.ErrUnsupported
}

// CreateSnapshot takes a snapshot and remembers it as an object.
func (e *Engine) CreateSnapshot(ctx context.Context, req SnapshotRequest) (Result, error) {
	return Result{}, errors.ErrUnsupported
}

// DeleteSnapshot deletes a snapshot's data and its object.
func (e *Engine) DeleteSnapshot(ctx context.Context, vm, name string, opt Options) (Result, error) {
	return Result{}, errors.ErrUnsupported
}

// AwaitReady waits until a machine is Ready, its readiness timeout is over, or
// ctx ends; the result's Status tells which.
func (e *Engine) AwaitReady(ctx context.Context, name string) (Result, error) {
	return Result{}, errors.ErrUnsupported
}

// Locked calls do with one fresh full look at a machine while no other process
// may act on it.
func (e *Engine) Locked(ctx context.Context, name string, do func(context.Context, View) error) error {
	return errors.ErrUnsupported
}
