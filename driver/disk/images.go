package disk

import (
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/slowfs"
	"github.com/maqet/maqet/internal/timing"
)

// Config is what Images needs to know.
type Config struct {
	// Timing limits qemu-img (Image), looking at files (File) and the wait for another
	// creation in the same folder (Lock).
	Timing timing.Table
	// QemuImg is the path of qemu-img. Empty: it is looked up in PATH when it is
	// first needed, so that a host without it can still do everything else.
	QemuImg string
	// Machines is the folder of the machines' folders, each of which may belong to the
	// user that the machine's QEMU runs as. Empty: all are maqet's own.
	Machines string
	// Log receives what was done; nil discards it.
	Log *slog.Logger
}

// Images works on image files. Its methods may be called from any number of
// goroutines.
type Images struct {
	timing  timing.Table
	qemuImg string
	// machines is as in Config.
	machines string
	log      *slog.Logger
	locks    *filelock.Manager
	files    *slowfs.Files
	// free tells how many bytes may still be written below a folder.
	free func(dir string) (uint64, error)
	// known saves asking again about images that have not changed.
	known memory
}

// New returns an Images. It looks at nothing yet.
func New(cfg Config) *Images {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Images{
		timing: cfg.Timing, qemuImg: cfg.QemuImg, machines: cfg.Machines, log: log, locks: filelock.New(), files: slowfs.New(cfg.Timing.File), free: freeBytes,
	}
}

// freeBytes asks the filesystem for what an unprivileged user may still write.
func freeBytes(dir string) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	return fs.Bavail * uint64(fs.Bsize), nil //nolint:gosec // a block size is positive
}
