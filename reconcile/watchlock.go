package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
)

// LiveWatch is a watch that runs now: whose objects it keeps, and from where.
type LiveWatch struct {
	PID int `json:"pid"`
	// Owner is the owner of its objects.
	Owner string `json:"owner"`
	// Roots are the folders and files it keeps, absolute.
	Roots []string `json:"roots"`
	// Since is when it began.
	Since time.Time `json:"since"`
}

// has tells whether all of the given roots are below the watch's own.
func (w *LiveWatch) has(roots []string) bool {
	for _, r := range roots {
		inside := false
		for _, own := range w.Roots {
			inside = inside || r == own || strings.HasPrefix(r, strings.TrimSuffix(own, "/")+"/")
		}
		if !inside {
			return false
		}
	}
	return len(roots) > 0
}

// WatchLock makes the watch of a state dir the only one, and tells others of it.
type WatchLock struct {
	Locks  *filelock.Manager
	Layout layout.Layout
}

// brieflyHeld is how long a look at the lock by another may hold it.
const brieflyHeld = time.Second

// Claim makes this process the one watch of the state dir. A second one gets a
// *filelock.HeldError with the holder's pid. The returned function ends the claim.
func (l WatchLock) Claim(ctx context.Context, w LiveWatch) (release func() error, err error) {
	ctx, cancel := context.WithTimeout(ctx, brieflyHeld)
	defer cancel()
	// A mere look takes the lock for a moment, so one try would not do.
	lock, err := l.Locks.Lock(ctx, l.Layout.ControllerLock())
	if err != nil {
		return nil, fmt.Errorf("become the watch of %s: %w", l.Layout.State, err)
	}
	text, err := json.Marshal(w)
	if err == nil {
		err = durable.WriteVolatile(l.Layout.Controller(), text, 0o600)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("say that there is a watch: %w", err), lock.Unlock())
	}
	return func() error {
		err := os.Remove(l.Layout.Controller())
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return errors.Join(err, lock.Unlock())
	}, nil
}

// Live is the watch that runs now; nil when there is none.
func (l WatchLock) Live(context.Context) (*LiveWatch, error) {
	text, err := os.ReadFile(l.Layout.Controller())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // Nothing is what there is.
	}
	if err != nil {
		return nil, fmt.Errorf("look for a watch: %w", err)
	}
	lock, err := l.Locks.TryLock(l.Layout.ControllerLock())
	if err == nil {
		// Nobody holds it: who wrote the file was killed.
		if err := lock.Unlock(); err != nil {
			return nil, fmt.Errorf("look for a watch: %w", err)
		}
		return nil, nil //nolint:nilnil // Nothing is what there is.
	}
	if _, held := errors.AsType[*filelock.HeldError](err); !held {
		return nil, fmt.Errorf("look for a watch: %w", err)
	}
	w := &LiveWatch{}
	if err := json.Unmarshal(text, w); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Base(l.Layout.Controller()), err)
	}
	return w, nil
}
