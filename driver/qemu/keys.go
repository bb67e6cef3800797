package qemu

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/maqet/maqet/driver/keyboard"
	"github.com/maqet/maqet/driver/qmp"
)

// ErrNoKeyboard is of a machine that has no keyboard.
var ErrNoKeyboard = errors.New("it has no keyboard")

const (
	// opKeys is what an error of the keyboard says was tried.
	opKeys = "press keys of"
	// keyBatch is how many strokes are given to QEMU at once at most. They all fit into its
	// queue, which drops without a word what does not.
	keyBatch = 16
	// keyVisit is how long a batch may take, so that a person who interrupts a long text
	// does not wait for it.
	keyVisit = 500 * time.Millisecond
)

// Press presses strokes one after the other; each press and each release of a key takes
// step. It returns when QEMU has given all of them to the guest's keyboard; whether the
// guest reads it nobody can see. done is how many strokes were given before an error.
func (d *Driver) Press(ctx context.Context, name string, strokes []keyboard.Stroke, step time.Duration) (done int, err error) {
	for done < len(strokes) {
		batch, takes := nextBatch(strokes[done:], step)
		err := d.atKeyboard(ctx, name, done == 0, func(ctx context.Context, c *qmp.Conn) error {
			return c.DoAll(ctx, pressCalls(batch, step)...)
		})
		if err != nil {
			return done, err
		}
		// QEMU releases what it has pressed by itself, so an interruption waits for nothing.
		if err := pause(ctx, takes); err != nil {
			return done, err
		}
		done += len(batch)
	}
	return done, nil
}

// nextBatch is what is given to QEMU next, and how long that takes.
func nextBatch(strokes []keyboard.Stroke, step time.Duration) (batch []keyboard.Stroke, takes time.Duration) {
	for _, s := range strokes {
		t := 2 * time.Duration(len(s)) * step
		if len(batch) == keyBatch || len(batch) > 0 && takes+t > keyVisit {
			break
		}
		batch, takes = append(batch, s), takes+t
	}
	return batch, takes
}

// keyPress are the arguments of send-key.
type keyPress struct {
	Keys keyboard.Stroke `json:"keys"`
	// HoldTime is in milliseconds.
	HoldTime int64 `json:"hold-time"`
}

func pressCalls(strokes []keyboard.Stroke, step time.Duration) []*qmp.Call {
	calls := make([]*qmp.Call, len(strokes))
	for i, s := range strokes {
		calls[i] = qmp.NewCall("send-key", keyPress{s, step.Milliseconds()}, nil)
	}
	return calls
}

// Hold presses the keys of a stroke, all at once, and releases them after some time, also
// when ctx ends before.
func (d *Driver) Hold(ctx context.Context, name string, stroke keyboard.Stroke, long time.Duration) error {
	err := d.atKeyboard(ctx, name, true, func(ctx context.Context, c *qmp.Conn) error {
		return c.Do(ctx, "input-send-event", keyEvents(stroke, true), nil)
	})
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	waited := errors.Join(err, pause(ctx, long))
	up := slices.Clone(stroke)
	slices.Reverse(up)
	err = d.Visit(context.WithoutCancel(ctx), name, func(ctx context.Context, c *qmp.Conn) error {
		ctx, cancel := context.WithTimeout(ctx, d.timing.Query)
		defer cancel()
		return c.Do(ctx, "input-send-event", keyEvents(up, false), nil)
	})
	if err != nil {
		return errors.Join(waited, fmt.Errorf("the keys may still be down; press them once more to release them: %w", err))
	}
	return waited
}

// keyEvents are the arguments of input-send-event that move keys down or up.
func keyEvents(keys keyboard.Stroke, down bool) any {
	type data struct {
		Down bool         `json:"down"`
		Key  keyboard.Key `json:"key"`
	}
	type event struct {
		Type string `json:"type"`
		Data data   `json:"data"`
	}
	events := make([]event, len(keys))
	for i, k := range keys {
		events[i] = event{"key", data{down, k}}
	}
	return map[string]any{"events": events}
}

// atKeyboard calls fn with a QEMU whose guest runs; first looks whether there is a
// keyboard, too. QEMU itself takes keys for a guest that does not run, or has no keyboard,
// and drops them.
func (d *Driver) atKeyboard(ctx context.Context, name string, first bool, fn func(ctx context.Context, c *qmp.Conn) error) error {
	err := d.Visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		ctx, cancel := context.WithTimeout(ctx, d.timing.Query)
		defer cancel()
		var status struct {
			Status string `json:"status"`
		}
		calls := []*qmp.Call{qmp.NewCall("query-status", nil, &status)}
		var lists [3][]qomItem
		if first {
			for i, path := range []string{"/machine/unattached", "/machine/peripheral", "/machine/peripheral-anon"} {
				calls = append(calls, qomList(path, &lists[i]))
			}
		}
		if err := c.DoAll(ctx, calls...); err != nil {
			return err
		}
		switch {
		case status.Status != runStateRunning && status.Status != "suspended":
			return fail(opKeys, name, fmt.Errorf("%w: QEMU says %s", ErrNotResponsive, status.Status), "resume it with: maqet resume "+name)
		case first && !hasKeyboard(lists[:]):
			return fail(opKeys, name, ErrNoKeyboard, "add one to its spec, such as devices: [{name: keyboard, driver: virtio-keyboard-pci}]")
		}
		return fn(ctx, c)
	})
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return ctx.Err()
	}
	return asOp(opKeys, name, err)
}

// hasKeyboard tells whether an object in the lists is a keyboard.
func hasKeyboard(lists [][]qomItem) bool {
	for _, list := range lists {
		for _, o := range list {
			kind, ok := o.kind()
			if ok && (strings.HasPrefix(kind, "i8042") || strings.HasPrefix(kind, "virtio-keyboard") || strings.HasSuffix(kind, "-kbd")) {
				return true
			}
		}
	}
	return false
}

// usualData is where QEMU's data lies on most hosts.
const usualData = "/usr/share/qemu"

// DataFolders are the folders that a running machine's QEMU reads its own data from, such
// as keymaps, the first first.
func (d *Driver) DataFolders(ctx context.Context, name string) ([]string, error) {
	if err := d.usable(name); err != nil {
		return nil, fail(opKeys, name, err, "")
	}
	l, err := d.look(name)
	if err != nil {
		return nil, fail(opKeys, name, err, "")
	}
	defer l.close()
	if l.launched == nil || len(l.launched.Argv) == 0 {
		return nil, fail(opKeys, name, ErrNotRunning, "start it with: maqet start "+name)
	}
	binary := l.launched.Argv[0]
	ctx, cancel := context.WithTimeout(ctx, d.timing.Probe)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-L", "help") //nolint:gosec,forbidigo // G204: the binary that the machine runs by; it prints its folders and ends
	cmd.WaitDelay = drainDelay
	out, err := cmd.Output()
	if err != nil {
		return nil, fail(opKeys, name, fmt.Errorf("ask %s for its data folders: %w", binary, err), "")
	}
	return append(strings.Split(strings.TrimSpace(string(out)), "\n"), usualData), nil
}
