package state

import (
	"log/slog"
	"sync"
	"time"

	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/timing"
)

// The types of events.
const (
	// EventNormal is something that went as it should.
	EventNormal = "Normal"
	// EventWarning is something that somebody may want to look at.
	EventWarning = "Warning"
)

// Event is one line of the journal: something that happened to a machine.
type Event struct {
	// Time is when it was noted.
	Time    time.Time `json:"time"`
	Machine string    `json:"machine"`
	// Type is EventNormal or EventWarning.
	Type string `json:"type"`
	// Reason is one word for programs: one of Reasons, or the reason of a problem.
	Reason string `json:"reason"`
	// Message is one line for people.
	Message string `json:"message"`
	// Who made it happen, such as "apply (pid 4711, ann)".
	Who string `json:"who,omitempty"`
	// Generation is that of the machine's spec at that time.
	Generation int64 `json:"generation,omitempty"`
}

// Filter chooses events. The zero filter chooses all.
type Filter struct {
	// Machines are names; empty is every machine.
	Machines []string
	// Since leaves out what was noted before; zero leaves out nothing.
	Since time.Time
	// Last keeps only so many of the newest; 0 keeps all, a negative one none.
	Last int
}

// defaultJournalSize is how large the newer part of a journal becomes: some
// thousands of events.
const defaultJournalSize = 1 << 20

// JournalConfig is what a journal needs. Path, Before and LockPath are required.
type JournalConfig struct {
	// Path is the file that is appended to, Before the older one that it becomes.
	// Their folder must exist before the first Append.
	Path, Before string
	// LockPath is the lock file that every process takes to append.
	LockPath string
	// Locks takes the lock. Nil: a manager of the journal's own.
	Locks *filelock.Manager
	// Timing bounds the waiting by its Events. Zero: the default table.
	Timing timing.Table
	// MaxBytes is the size at which the file becomes the older one, so that the
	// whole journal takes twice that. 0: 1 MiB.
	MaxBytes int64
	// Log hears of damaged lines. Nil: nobody does.
	Log *slog.Logger
}

// Journal is the bounded journal of events of one state dir. It may be used by
// any number of goroutines, and beside it by any number of other processes.
type Journal struct {
	cfg JournalConfig
	// turn holds one value while this process appends.
	turn chan struct{}

	mu   sync.Mutex
	next *batch       // what the next turn writes; nil when nothing waits
	said map[int]bool // numbers of damaged lines that were logged already
}

// NewJournal is a journal that has opened nothing yet.
func NewJournal(cfg JournalConfig) *Journal {
	if cfg.Locks == nil {
		cfg.Locks = filelock.New()
	}
	if cfg.Timing.Events <= 0 {
		cfg.Timing = timing.Default()
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = defaultJournalSize
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Journal{cfg: cfg, turn: make(chan struct{}, 1), said: map[int]bool{}}
}

// fail says what was tried on the journal and what to do about the cause.
func (j *Journal) fail(op string, err error) error {
	return &Error{Op: op, Object: "journal " + j.cfg.Path, Err: err, Hint: hint(err, j.cfg.Path)}
}

// say logs once how many lines are damaged.
func (j *Journal) say(damaged int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if damaged > 0 && !j.said[damaged] {
		j.said[damaged] = true
		j.cfg.Log.Warn("the journal is damaged; the other events are shown", "path", j.cfg.Path, "damaged_lines", damaged)
	}
}
