package reconcile

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/manifest"
)

// simBackups make backups of the machines of a simulated host. Making one takes time.
type simBackups struct {
	mu sync.Mutex
	// fail is why none can be made; nil when they can. takes is how long one takes.
	fail  error
	takes time.Duration
	// going are those that go on, most is how many did so at once.
	going map[string]bool
	most  int
	// made are the requests of those that are complete, by machine; tries counts all.
	made  map[string][]driver.BackupRequest
	tries int
}

func newSimBackups() *simBackups {
	return &simBackups{going: map[string]bool{}, made: map[string][]driver.BackupRequest{}, takes: time.Minute}
}

func (b *simBackups) set(do func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	do()
}

// ofWeb are those of the machine web.
func (b *simBackups) ofWeb() []driver.BackupRequest {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.made["web"]
}

func (b *simBackups) LockBackups(_ context.Context, name string) (func(), error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.going[name] {
		return nil, fmt.Errorf("back up %s: %w", name, filelock.ErrHeld)
	}
	b.going[name] = true
	b.most = max(b.most, len(b.going))
	return func() { b.set(func() { delete(b.going, name) }) }, nil
}

func (b *simBackups) BeginBackup(_ context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.BackupRequest) (driver.PendingBackup, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tries++
	if b.fail != nil {
		return nil, b.fail
	}
	return &simBackup{b: b, name: vm.Metadata.Name, req: req, stopped: obs.Presence == driver.Absent}, nil
}

// simBackup is one that goes on.
type simBackup struct {
	b       *simBackups
	name    string
	req     driver.BackupRequest
	stopped bool
}

func (p *simBackup) NeedsMachine() bool { return p.stopped }

func (p *simBackup) Finish(ctx context.Context, _ func(driver.BackupStage)) (driver.BackupReport, error) {
	if after(ctx, p.b.takes); ctx.Err() != nil {
		return driver.BackupReport{}, ctx.Err()
	}
	p.b.set(func() { p.b.made[p.name] = append(p.b.made[p.name], p.req) })
	return driver.BackupReport{Marker: "mark", Run: driver.BackupRun{
		ID: "run", VM: p.name, Type: manifest.BackupFull, Scheduled: p.req.Scheduled, At: time.Now(),
		Disks: []driver.BackupDisk{{Name: "root", Bytes: 1 << 20}},
	}}, nil
}
