package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/maqet/maqet/manifest"
)

// Extract is what a qcow2 held when one of its internal snapshots was taken. It is read
// beside a QEMU that has the image open, and takes no lock from it: what belongs to a
// snapshot is never written to again, so it reads the same until the snapshot is
// deleted. Whether that has happened meanwhile, [SnapshotOf] tells before and after.
type Extract struct {
	// Path is the image, Tag the snapshot.
	Path, Tag string
	// Base is the image that it reads from. Nil: it reads from none, whatever its header
	// says, unless Chain.
	Base *Base
	// Chain follows the backing files that the image names, for one that is its owner's.
	Chain bool
	// As are the rights that it is read with; nil for maqet's own. An image that another
	// user writes to could name files that are not his.
	As *syscall.Credential
}

// Target is how an extract is written.
type Target struct {
	// Format is qcow2 or raw.
	Format manifest.DiskFormat
	// Overlay reads from the extract's base what the snapshot did, too. Otherwise the
	// target is complete in itself.
	Overlay bool
	// Compress compresses a qcow2.
	Compress bool
	// Size is what a guest shall see, at most what it sees of the image now.
	Size int64
}

// source is how qemu-img opens the image: with every file and driver named, so that
// nothing is guessed and nothing opened that the header alone names.
func (x Extract) source() (string, error) {
	file := func(path string) map[string]any {
		protocol := "file"
		if st, err := os.Stat(path); err == nil && st.Mode()&os.ModeDevice != 0 {
			protocol = "host_device"
		}
		return map[string]any{"driver": protocol, "filename": path}
	}
	path, err := absolute("copy", x.Path)
	if err != nil {
		return "", err
	}
	node := map[string]any{"driver": string(manifest.FormatQcow2), "file": file(path)}
	if x.Base != nil {
		node["backing"] = map[string]any{"driver": x.Base.Format, "file": file(x.Base.Path)}
	} else if !x.Chain {
		node["backing"] = nil
	}
	text, err := json.Marshal(node)
	return "json:" + string(text), err
}

// snapshotOpt names the snapshot by its tag, and never by its number.
func (x Extract) snapshotOpt() string {
	return "snapshot.name=" + strings.ReplaceAll(x.Tag, ",", ",,")
}

// Measure tells how much room the extract needs at most.
func (i *Images) Measure(ctx context.Context, x Extract, t Target) (int64, error) {
	const op = "measure"
	only := x
	if t.Overlay {
		only.Base = nil
	}
	source, err := only.source()
	if err != nil {
		return 0, err
	}
	var stdout bytes.Buffer
	err = i.again(ctx, func() error {
		stdout.Reset()
		limited, cancel := i.limit(ctx)
		defer cancel()
		return i.runTool(limited, toolRun{
			args: []string{"measure", "-U", "-l", x.snapshotOpt(), "-O", string(manifest.FormatQcow2), "--output=json", source}, as: x.As, stdout: &stdout,
		})
	})
	if err != nil {
		return 0, fail(x.Path, op, err)
	}
	var size struct{ Required int64 }
	if err := json.Unmarshal(stdout.Bytes(), &size); err != nil {
		return 0, fail(x.Path, op, fmt.Errorf("qemu-img measure: decode: %w", err))
	}
	return size.Required, nil
}

// limit is the time for one short command.
func (i *Images) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if i.timing.Image <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, i.timing.Image,
		fmt.Errorf("qemu-img took longer than %s (timeout \"image\"): %w", i.timing.Image, context.DeadlineExceeded))
}

// again does what reads a snapshot, and once more when that fails: QEMU may have moved
// the table of snapshots just then, since another one was taken or deleted.
func (i *Images) again(ctx context.Context, do func() error) error {
	var err error
	for range snapshotReads {
		err = do()
		var tool *ToolError
		if err == nil || ctx.Err() != nil || !errors.As(err, &tool) || !ofSnapshots(tool.Line) {
			return err
		}
	}
	return err
}

// ofSnapshots tells whether qemu-img complains of the table of snapshots. Its last line
// may be a piece of advice that does not name it, "You can force-remove this extra
// metadata".
func ofSnapshots(line string) bool {
	return strings.Contains(line, "snapshot") || strings.Contains(line, "extra metadata")
}

// CheckRoom refuses when what is to be written to dir does not fit, and a reserve.
func (i *Images) CheckRoom(dir string, need int64) error {
	free, err := i.free(dir)
	if err != nil {
		return fail(dir, "write to", err)
	}
	if want := uint64(need) + spaceReserve; free < want { //nolint:gosec // a size is positive
		return fail(dir, "write to", fmt.Errorf("%w: the copies need %d MiB at most (with a reserve of %d MiB), and %d MiB are free",
			syscall.ENOSPC, want>>20, spaceReserve>>20, free>>20))
	}
	return nil
}

// ExtractTo writes an extract into an empty file, and returns when it is on stable
// storage. Told hears from time to time how far it is, in percent. It is given up when
// it makes no progress for as long as one qemu-img may take.
func (i *Images) ExtractTo(ctx context.Context, to *os.File, x Extract, t Target, told func(percent float64)) error {
	const op = "copy"
	source, err := x.source()
	if err != nil {
		return err
	}
	args := []string{"convert", "-U", "-p", "-l", x.snapshotOpt(), "-O", string(t.Format)}
	if t.Compress {
		args = append(args, "-c")
	}
	if t.Overlay {
		args = append(args, "-B", x.Base.Path, "-F", x.Base.Format)
	}
	args = append(args, source, written)
	err = i.again(ctx, func() error {
		going, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		p := &percentages{told: told}
		if limit := i.timing.Image; limit > 0 {
			defer watchGrowth(to, limit, func() {
				cancel(fmt.Errorf("qemu-img made no progress for %s (timeout \"image\"): %w", limit, context.DeadlineExceeded))
			})()
		}
		return i.runTool(going, toolRun{args: args, file: to, as: x.As, stdout: p})
	})
	if err == nil {
		err = i.settle(ctx, to, x, t)
	}
	if err == nil {
		err = to.Sync()
	}
	return wrap(x.Path, op, err)
}

// settle gives the target the size of then, and looks whether it is what it should be.
func (i *Images) settle(ctx context.Context, to *os.File, x Extract, t Target) error {
	if t.Format == manifest.FormatRaw {
		st, err := to.Stat()
		if err == nil && st.Size() < t.Size {
			err = fmt.Errorf("qemu-img convert: made %d bytes instead of %d", st.Size(), t.Size)
		}
		if err == nil && st.Size() > t.Size {
			err = to.Truncate(t.Size)
		}
		return err
	}
	h, err := readHeaderOf(to)
	if err != nil {
		return err
	}
	want := Header{Format: "qcow2", Size: h.Size}
	if t.Overlay {
		want.Backing, want.BackingFormat = x.Base.Path, x.Base.Format
	}
	if h != want || h.Size < t.Size {
		return fmt.Errorf("qemu-img convert: made %+v instead of %+v of %d bytes", h, want, t.Size)
	}
	if h.Size == t.Size {
		return nil
	}
	limited, cancel := i.limit(ctx)
	defer cancel()
	args := []string{"resize", "-q", "-f", string(t.Format), "--shrink", written, strconv.FormatInt(t.Size, 10)}
	if err := i.runTool(limited, toolRun{args: args, file: to, as: x.As, stdout: new(bytes.Buffer)}); err != nil {
		return err
	}
	if h, err = readHeaderOf(to); err == nil && h.Size != t.Size {
		err = fmt.Errorf("qemu-img resize: made %d bytes instead of %d", h.Size, t.Size)
	}
	return err
}

// watchGrowth calls stalled when a file has not been written to for as long as limit,
// until stop is called.
func watchGrowth(f *os.File, limit time.Duration, stalled func()) (stop func()) {
	over := make(chan struct{})
	go func() {
		tick := time.NewTicker(limit)
		defer tick.Stop()
		var last time.Time
		for {
			select {
			case <-over:
				return
			case <-tick.C:
			}
			st, err := f.Stat()
			if err != nil || st.ModTime().Equal(last) {
				stalled()
				return
			}
			last = st.ModTime()
		}
	}()
	return func() { close(over) }
}

// percentages reads qemu-img's progress, "    (12.34/100%)" and a carriage return.
type percentages struct {
	told func(float64)
	line []byte
	last float64
}

func (p *percentages) Write(text []byte) (int, error) {
	for _, c := range text {
		if c != '\r' && c != '\n' {
			const longest = 64
			if len(p.line) < longest {
				p.line = append(p.line, c)
			}
			continue
		}
		word, _, ok := strings.Cut(strings.TrimLeft(string(p.line), " ("), "/")
		p.line = p.line[:0]
		percent, err := strconv.ParseFloat(word, 64)
		if !ok || err != nil || percent == p.last {
			continue
		}
		p.last = percent
		if p.told != nil {
			p.told(percent)
		}
	}
	return len(text), nil
}
