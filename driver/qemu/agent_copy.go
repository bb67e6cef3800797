package qemu

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	"github.com/maqet/maqet/driver/qga"
)

const (
	// copyVisit is how long chunks are moved before others have their turn at the agent.
	copyVisit = time.Second
	// copyBatch is how much is read before it is written: neither a source nor a target
	// that is slow keeps others from the agent.
	copyBatch = 16 * qga.MaxChunk
)

// ErrIsDirectory and ErrIsLink are wrapped when a file should take the place of a
// directory or of a symbolic link in a guest.
var (
	ErrIsDirectory = errors.New("it is a directory in the guest")
	ErrIsLink      = errors.New("it is a symbolic link in the guest")
)

// CopyRequest is a file that is to be copied into a guest.
type CopyRequest struct {
	// Path is where it shall be in the guest, absolute.
	Path string
	// Mode is its mode; 0 is 0600. InPlace leaves the mode to the agent.
	Mode fs.FileMode
	// InPlace writes straight into Path, for guests without a shell: whoever reads it
	// meanwhile, and whoever comes after a failure, finds a part of it.
	InPlace bool
	// Source is read to its end.
	Source io.Reader
	// Copied is told how many bytes are copied so far; nil is not.
	Copied func(bytes int64)
}

// CopyIn copies a file into a guest by its agent. It is written under a hidden name
// beside its own, has its mode before there is anything in it, and takes its place when
// it is whole: never a part of it is found under its name. What is written is not forced
// out to the guest's disk.
func (d *Driver) CopyIn(ctx context.Context, name string, req CopyRequest) error {
	const op = "copy into"
	if err := d.agentThere(ctx, name); err != nil {
		return asOp(op, name, err)
	}
	target := req.Path
	if !req.InPlace {
		target = hiddenName(req.Path)
	}
	t := &transfer{driver: d, name: name, copied: req.Copied}
	err := t.open(ctx, target, "w")
	if err != nil {
		return fail(op, name, err, t.hint(err))
	}
	if !req.InPlace {
		// The agent makes files that everybody in the guest may read and write.
		err = t.run(ctx, `chmod -- "$1" "$2"`, fmt.Sprintf("%04o", modeOf(req.Mode)), target)
	}
	if err == nil {
		err = t.send(ctx, req.Source)
	}
	if closed := t.close(ctx); err == nil {
		err = closed
	}
	if err == nil && !req.InPlace {
		err = t.run(ctx, `[ ! -d "$2" ] || exit 21; [ ! -L "$2" ] || exit 40; exec mv -f -- "$1" "$2"`, target, req.Path)
	}
	if err == nil {
		return nil
	}
	return fail(op, name, t.left(ctx, err, target, req.InPlace), t.hint(err))
}

// modeOf is a mode, or the default.
func modeOf(mode fs.FileMode) fs.FileMode {
	if mode == 0 {
		return 0o600
	}
	return mode.Perm()
}

// hiddenName is a name beside a file, of a length that file systems take.
func hiddenName(file string) string {
	const most = 200
	dir, base := path.Split(file)
	return dir + "." + base[:min(len(base), most)] + ".maqet-" + rand.Text()[:10]
}

// hint is the remedy for what is particular to copying.
func (t *transfer) hint(err error) string {
	switch {
	case errors.Is(err, qga.ErrNotAnswering):
		return "see whether the guest hangs: maqet logs " + t.name
	case errors.Is(err, ErrIsDirectory):
		return "end the path with a slash to put the file into it"
	case errors.Is(err, ErrIsLink):
		return "name the file that it leads to, which maqet exec " + t.name + " -- readlink -f tells"
	case qga.IsUnsupported(err), errors.Is(err, errNoShell):
		return "with --in-place the guest needs no shell; the agent must permit guest-file-* in any case"
	default:
		return ""
	}
}

// transfer is a file in a guest that is read or written, in visits that leave others
// their turns. The agent keeps it open in between.
type transfer struct {
	driver *Driver
	name   string
	file   qga.File
	done   int64
	copied func(int64)
}

// visit visits the agent. What was begun there is seen to its end, since an answer that
// nobody waits for leaves it unknown how far the file is; ctx is looked at in between.
func (t *transfer) visit(ctx context.Context, fn func(calm context.Context, c *qga.Conn) error) error {
	x := execution{driver: t.driver, name: t.name}
	return cause(x.visit(ctx, fn))
}

// cause is an error without the words of the lifecycle, which come last and once.
func cause(err error) error {
	if e := lifecycle(err); e != nil {
		return e.Err
	}
	return err
}

func (t *transfer) open(ctx context.Context, file, mode string) error {
	return t.visit(ctx, func(calm context.Context, c *qga.Conn) (err error) {
		t.file, err = c.Open(calm, file, mode)
		return err
	})
}

// close closes the file, also for a caller who has given up.
func (t *transfer) close(ctx context.Context) error {
	ctx, cancel := t.lastly(ctx)
	defer cancel()
	return t.visit(ctx, func(calm context.Context, c *qga.Conn) error { return c.CloseFile(calm, t.file) })
}

// lastly is a context for what has to be done at the end.
func (t *transfer) lastly(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 2*t.driver.timing.Agent)
}

// moved counts.
func (t *transfer) moved(n int) {
	t.done += int64(n)
	if t.copied != nil {
		t.copied(t.done)
	}
}

// pieces calls move while there is more and until it fails, in as many visits as it takes.
func (t *transfer) pieces(ctx context.Context, more bool, move func(calm context.Context, c *qga.Conn) (more bool, err error)) error {
	for more {
		err := t.visit(ctx, func(calm context.Context, c *qga.Conn) (err error) {
			until := time.Now().Add(copyVisit)
			for more && err == nil && time.Now().Before(until) {
				if err = ctx.Err(); err == nil {
					more, err = move(calm, c)
				}
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// send writes all of a source.
func (t *transfer) send(ctx context.Context, source io.Reader) error {
	batch := make([]byte, copyBatch)
	for {
		n, readErr := io.ReadFull(source, batch)
		left := batch[:n]
		err := t.pieces(ctx, n > 0, func(calm context.Context, c *qga.Conn) (more bool, err error) {
			written, err := c.Write(calm, t.file, left[:min(len(left), qga.MaxChunk)])
			t.moved(written)
			left = left[written:]
			return len(left) > 0, err
		})
		switch {
		case err != nil:
			return err
		case errors.Is(readErr, io.EOF), errors.Is(readErr, io.ErrUnexpectedEOF):
			return ctx.Err()
		case readErr != nil:
			return readErr
		}
	}
}

// errNoShell tells that the guest has no shell to run something with.
var errNoShell = errors.New("the guest cannot run /bin/sh")

// run runs a shell line in the guest with arguments. The lines are short ones, and a
// guest for which they never end is given up.
func (t *transfer) run(ctx context.Context, line string, args ...string) error {
	most := t.driver.timing.AgentVisit
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("the guest's shell needs longer than %s", most))
	defer cancel()
	result, err := t.driver.Exec(ctx, t.name, ExecRequest{Command: append([]string{"/bin/sh", "-c", line, "sh"}, args...)})
	err = cause(err)
	if _, refused := errors.AsType[*qga.Error](err); refused {
		return fmt.Errorf("%w: %w", errNoShell, err)
	}
	if err != nil {
		return err
	}
	const isDirectory, isLink = 21, 40
	switch said := qga.Clean(string(result.Err), 256); {
	case result.ExitCode == isDirectory:
		return ErrIsDirectory
	case result.ExitCode == isLink:
		return ErrIsLink
	case result.ExitCode != 0 || result.Signal != 0:
		return fmt.Errorf("in the guest: %s (exit code %d)", said, result.ExitCode)
	default:
		return nil
	}
}

// left removes what a failed copy has left in the guest, and says what it could not.
func (t *transfer) left(ctx context.Context, why error, target string, inPlace bool) error {
	if inPlace {
		return fmt.Errorf("%w; %s in the guest is not whole", why, target)
	}
	ctx, cancel := t.lastly(ctx)
	defer cancel()
	if err := t.run(ctx, `rm -f -- "$1"`, target); err != nil {
		return fmt.Errorf("%w; %s is left in the guest", why, target)
	}
	return why
}

// CopyOut copies a file out of a guest by its agent: what is in it is written to w.
func (d *Driver) CopyOut(ctx context.Context, name, file string, w io.Writer, copied func(bytes int64)) error {
	const op = "copy from"
	if err := d.agentThere(ctx, name); err != nil {
		return asOp(op, name, err)
	}
	t := &transfer{driver: d, name: name, copied: copied}
	err := t.open(ctx, file, "r")
	if err != nil {
		return fail(op, name, err, t.hint(err))
	}
	err = t.receive(ctx, w)
	if closed := t.close(ctx); err == nil {
		err = closed
	}
	return fail(op, name, err, t.hint(err))
}

// receive reads all of the file.
func (t *transfer) receive(ctx context.Context, w io.Writer) error {
	batch := make([]byte, 0, copyBatch)
	empty := 0
	for ended := false; !ended; {
		batch = batch[:0]
		err := t.pieces(ctx, true, func(calm context.Context, c *qga.Conn) (more bool, err error) {
			chunk, eof, err := c.Read(calm, t.file)
			if err != nil {
				return false, err
			}
			ended, batch = eof, append(batch, chunk...)
			if empty++; len(chunk) > 0 {
				empty = 0
			}
			const most = 100
			if empty > most {
				return false, errors.New("it gives nothing and does not end, so it is no regular file")
			}
			return !ended && len(batch)+qga.MaxChunk <= copyBatch, nil
		})
		if err != nil {
			return err
		}
		if _, err := w.Write(batch); err != nil {
			return err
		}
		t.moved(len(batch))
	}
	return nil
}
