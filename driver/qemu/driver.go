package qemu

import (
	"log/slog"
	"time"

	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/internal/timing"
)

// Config is what a Driver works with.
type Config struct {
	// Layout names every file.
	Layout layout.Layout
	// Timing limits every wait.
	Timing timing.Table
	// Locks are shared by everything in this process that locks.
	Locks *filelock.Manager
	// Prober knows what binaries can do.
	Prober *Prober
	// Images works on the image files of stopped machines.
	Images *disk.Images
	// Log gets what changed; nil discards.
	Log *slog.Logger
	// Who is written into records that name who began something, such as "apply
	// (pid 4711, root)".
	Who string
}

// Driver starts, adopts, observes and changes the QEMU processes of one host.
// Its methods may be called from any number of goroutines.
type Driver struct {
	layout layout.Layout
	timing timing.Table
	locks  *filelock.Manager
	prober *Prober
	images *disk.Images
	log    *slog.Logger
	who    string

	now func() time.Time
}

// New makes a driver. It looks at nothing yet and starts nothing.
func New(cfg Config) *Driver {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Driver{
		layout: cfg.Layout, timing: cfg.Timing, locks: cfg.Locks, prober: cfg.Prober, images: cfg.Images,
		log: log, who: cfg.Who, now: time.Now,
	}
}
