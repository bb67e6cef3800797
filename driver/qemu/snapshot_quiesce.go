package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qga"
	"github.com/maqet/maqet/manifest"
)

// ErrNotQuiesced is wrapped when a snapshot is not taken, since its guest's file systems
// were to be frozen for it and were not.
var ErrNotQuiesced = errors.New("quiesce is Required, and the guest's file systems could not be kept frozen")

// cutOffFrozen is why a snapshot is not known to be quiesced of which nobody has seen
// the end of the freeze.
const cutOffFrozen = "maqet was cut off before it had seen that they were frozen to the end"

// quiet is a guest that is frozen for a snapshot; nil is one that is not.
type quiet struct{ frozen *Frozen }

// thaw thaws, unless that was done.
func (q *quiet) thaw(ctx context.Context) error {
	if q == nil {
		return nil
	}
	return q.frozen.Thaw(ctx)
}

// quiesce freezes the file systems of a guest that runs, if it should and can be, and
// notes in the draft that it is not quiesced: that it is, nobody knows before the end.
// An error is a snapshot that must not be taken.
func (s *snapshots) quiesce(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent, draft *driver.SnapshotRecord) (*quiet, error) {
	if draft.Consistency != ConsistencyCrash {
		return nil, nil //nolint:nilnil // nothing to freeze is an answer of its own
	}
	if req.Quiesce == manifest.QuiesceNever {
		draft.NotQuiesced = "quiesce is Never"
		return nil, nil //nolint:nilnil // as above
	}
	frozen, err := s.tryFreeze(ctx, vm.Metadata.Name, obs.Guest.Agent)
	switch {
	case err == nil:
		draft.NotQuiesced = cutOffFrozen
		return &quiet{frozen}, nil
	case ctx.Err() != nil:
		return nil, err
	case req.Quiesce == manifest.QuiesceRequired:
		return nil, fmt.Errorf("%w: %w", ErrNotQuiesced, cause(err))
	}
	draft.NotQuiesced = cause(err).Error()
	if !errors.Is(err, ErrNoAgentPort) {
		s.log.LogAttrs(ctx, slog.LevelWarn, "snapshot without a freeze", slog.String("vm", vm.Metadata.Name), slog.Any("err", err))
	}
	return nil, nil //nolint:nilnil // as above
}

// tryFreeze freezes what there is to freeze, for as long as a snapshot may take it.
func (s *snapshots) tryFreeze(ctx context.Context, name string, agent *driver.GAgent) (*Frozen, error) {
	switch {
	case agent == nil:
		return nil, ErrNoAgentPort
	case !agent.Open:
		return nil, qga.ErrAbsent
	}
	frozen, err := s.freeze(ctx, name, s.timing.Frozen)
	if err != nil {
		return nil, err
	}
	if frozen.Count == 0 && len(frozen.Mountpoints) > 0 {
		_ = frozen.Thaw(ctx) // there is nothing to be thawed, and if it fails the next pass does it
		return nil, fmt.Errorf("none of the file systems at %s can be frozen", strings.Join(frozen.Mountpoints, ", "))
	}
	return frozen, nil
}

// quieted thaws right after the disks have the snapshot, and notes in the draft whether
// they were frozen until then.
func (s *snapshots) quieted(ctx context.Context, q *quiet, req driver.SnapshotIntent, draft *driver.SnapshotRecord) error {
	if q == nil {
		return nil
	}
	err := q.thaw(ctx)
	if errors.Is(err, ErrFreezeRanOut) {
		if draft.NotQuiesced = cause(err).Error(); req.Quiesce == manifest.QuiesceRequired {
			return fmt.Errorf("%w: %w", ErrNotQuiesced, cause(err))
		}
		return nil
	}
	// A guest that could not be thawed was frozen all the more. The marker tells of it.
	draft.Consistency, draft.NotQuiesced, draft.Frozen = ConsistencyQuiesced, "", q.frozen.Count
	if err != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "thawing after a snapshot failed", slog.String("vm", q.frozen.name), slog.Any("err", err))
	}
	return nil
}
