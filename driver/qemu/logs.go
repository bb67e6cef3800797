package qemu

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
)

// LogKind is one of a machine's logs.
type LogKind string

// The logs.
const (
	// LogSerial is what the guest wrote on its serial line.
	LogSerial LogKind = "serial"
	// LogQEMU is what QEMU wrote on stderr.
	LogQEMU LogKind = "qemu"
	// LogVirtioFS is what the virtiofsd of the machine's filesystems wrote.
	LogVirtioFS LogKind = "virtiofsd"
)

// LogRequest is which part of a log to read.
type LogRequest struct {
	Kind LogKind
	// Tail is how many last lines to begin with; negative is all.
	Tail int
	// Follow goes on with what is written later, until ctx ends.
	Follow bool
}

// Logs writes a log of a machine to w. With Follow it returns only with an error,
// ctx's as a rule.
func (d *Driver) Logs(ctx context.Context, name string, req LogRequest, w io.Writer) error {
	const op = "read the log of"
	if err := checkName(d.layout, name); err != nil {
		return fail(op, name, err, "")
	}
	path, hint := d.layout.SerialLog(name), "the guest's serial line is kept when the manifest says serial: {log: true}"
	switch req.Kind {
	case LogSerial:
	case LogQEMU:
		path, hint = d.layout.QEMULog(name), "the machine has not been started yet"
	case LogVirtioFS:
		path, hint = d.layout.VirtioFSLog(name), "the machine has not been started with a filesystem by virtiofs yet"
	}
	err := d.readLog(ctx, path, req, w)
	if !errors.Is(err, fs.ErrNotExist) {
		hint = ""
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return ctx.Err()
	}
	return fail(op, name, err, hint)
}

func (d *Driver) readLog(ctx context.Context, path string, req LogRequest, w io.Writer) (err error) {
	r, err := d.openReader(path, req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	return r.copy(ctx, w)
}

// logReader reads a log from a place in it that is known already.
type logReader struct {
	watch  *fileWatch
	f      *os.File
	at     int64
	follow bool
}

// openReader finds where the wanted part of a log begins.
func (d *Driver) openReader(path string, req LogRequest) (*logReader, error) {
	watch, err := d.watchFile(path, req.Follow)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path) //nolint:gosec // a file of the layout
	if err != nil {
		return nil, errors.Join(err, watch.close())
	}
	r := &logReader{watch: watch, f: f, follow: req.Follow}
	if r.at, err = tailOffset(f, req.Tail); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// copy writes what is there, and what comes then if that is wanted.
func (r *logReader) copy(ctx context.Context, w io.Writer) error {
	for {
		if err := r.more(w); err != nil || !r.follow {
			return err
		}
		if err := r.watch.next(ctx); err != nil {
			return err
		}
		// A log that has become shorter was rotated; its content was shown already.
		if info, err := r.f.Stat(); err == nil && info.Size() < r.at {
			r.at = 0
		}
	}
}

// more writes what there is now.
func (r *logReader) more(w io.Writer) (err error) {
	r.at, err = copyFrom(w, r.f, r.at)
	return err
}

func (r *logReader) close() error { return errors.Join(r.watch.close(), r.f.Close()) }

// copyFrom copies what f holds behind an offset, and returns the new offset.
func copyFrom(w io.Writer, f *os.File, at int64) (int64, error) {
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return at, err
	}
	n, err := io.Copy(w, f)
	return at + n, err
}

// tailOffset is where the last lines begin. An unfinished last line counts as one.
func tailOffset(f *os.File, lines int) (int64, error) {
	if lines < 0 {
		return 0, nil
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	const block = 64 << 10
	end := info.Size()
	if lines == 0 {
		return end, nil
	}
	buf := make([]byte, block)
	for at, left := end, lines; at > 0; {
		n := min(at, block)
		at -= n
		part := buf[:n]
		if _, err := f.ReadAt(part, at); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for i, c := range slices.Backward(part) {
			// The newline at the very end closes the last line and begins none.
			if c != '\n' || at+int64(i) == end-1 {
				continue
			}
			if left--; left <= 0 {
				return at + int64(i) + 1, nil
			}
		}
	}
	return 0, nil
}

// lastWordsOf is the end of what a log holds behind an offset.
func lastWordsOf(path string, from int64) []byte {
	f, err := os.Open(path) //nolint:gosec // a file of the layout
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // it is only read
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	if info.Size() < from {
		from = 0 // it was rotated meanwhile
	}
	from = max(from, info.Size()-lastWordsLen)
	text := make([]byte, info.Size()-from)
	n, err := f.ReadAt(text, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	return text[:n]
}

// lastLine is the last line behind an offset of a log that says something. What swtpm
// says, such as that QEMU is gone, is not QEMU's.
func lastLine(path string, from int64) string {
	text := bytes.TrimRight(lastWordsOf(path, from), "\x00")
	for {
		words := lastWords{tail: text}
		line := words.line()
		if !strings.HasPrefix(line, swtpmBinary+": ") {
			return line
		}
		text = text[:bytes.LastIndex(text, []byte(swtpmBinary+": "))]
	}
}

// lockQuestion is what QEMU asks below its complaint about an image that it could not
// lock.
var lockQuestion = regexp.MustCompile(`(?s)(Failed to get (?:shared )?"[a-z ]+" lock)\nIs another process using the image \[(.*)\]\?`)

// lockedImage is the image that QEMU says another process has, and the complaint; both
// are empty when it says no such thing.
func lockedImage(path string, from int64) (image, complaint string) {
	m := lockQuestion.FindSubmatch(lastWordsOf(path, from))
	if m == nil {
		return "", ""
	}
	return string(m[2]), string(m[1])
}

// rotateAll keeps the logs of a machine small. It is called by whoever holds the
// lock of the machine's socket for short visits. A log that cannot be rotated is
// told of and is no reason to fail.
func (d *Driver) rotateAll(ctx context.Context, name string) {
	if err := d.rotate(name); err != nil {
		d.log.LogAttrs(ctx, slog.LevelWarn, "rotating logs failed", slog.String("vm", name), slog.Any("err", err))
	}
}
