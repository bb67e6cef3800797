package imagestore

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/maqet/maqet/manifest"
)

const (
	// block is the unit in which images are read and written: a block of zeros
	// becomes a hole.
	block = 64 << 10
	// spaceStep is after how many bytes the free space is looked at again.
	spaceStep = 64 << 20
	// maxWindow is the most memory that unpacking zstd may ask for as its window,
	// which is what the tool zstd itself takes without being told to.
	maxWindow = 128 << 20
)

// unpacker reads what is packed in r. Close it when done.
func unpacker(kind string, r io.Reader) (io.Reader, func(), error) {
	nothing := func() {}
	switch kind {
	case "":
		return r, nothing, nil
	case "xz":
		out, err := xz.NewReader(r)
		return out, nothing, packedError(kind, err)
	case "gz":
		out, err := gzip.NewReader(r)
		return out, nothing, packedError(kind, err)
	case "zst":
		out, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nothing, packedError(kind, err)
		}
		return out, out.Close, nil
	default:
		return nil, nothing, fmt.Errorf("%q is no way to pack that is known", kind)
	}
}

// errPacked is wrapped when what should be packed cannot be unpacked.
var errPacked = errors.New("it cannot be unpacked")

func packedError(kind string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w as .%s: %w", errPacked, kind, err)
}

// unpack writes what is packed in r to a file, with holes where there are zeros.
func (s *Store) unpack(ctx context.Context, kind string, r io.Reader, to *os.File) error {
	in, end, err := unpacker(kind, r)
	if err != nil {
		return err
	}
	defer end()
	buffer := make([]byte, block)
	var at, looked int64
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := fill(in, buffer)
		if n > 0 {
			if at+int64(n) > s.cfg.MaxSize {
				return s.tooMuch("unpacked, ")
			}
			if at-looked >= spaceStep {
				looked = at
				if err := s.room(0); err != nil {
					return err
				}
			}
			if err := writeSparse(to, buffer[:n], at); err != nil {
				return err
			}
			at += int64(n)
		}
		switch {
		case err == io.EOF: //nolint:errorlint // the end itself is never wrapped
			return to.Truncate(at)
		case err != nil:
			return readError(kind, err)
		}
	}
}

// fill reads until b is full, or to the end, which is io.EOF. Unlike io.ReadFull it
// tells an end from content that was cut off.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

// readError tells what is wrong with packed content from what reading it met.
func readError(kind string, err error) error {
	if kind == "" || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if _, ok := errors.AsType[*os.PathError](err); ok {
		return err
	}
	return packedError(kind, err)
}

// zeros are what holes are made of.
var zeros [block]byte //nolint:gochecknoglobals // never written to

func writeSparse(to *os.File, content []byte, at int64) error {
	if bytes.Equal(content, zeros[:len(content)]) {
		return nil
	}
	_, err := to.WriteAt(content, at)
	return err
}

// room refuses when more bytes would not leave the reserve free.
func (s *Store) room(more int64) error {
	free, err := s.free(s.cfg.Layout.ImageDir())
	if err != nil {
		return err
	}
	if free-more >= reserve {
		return nil
	}
	return fmt.Errorf("%w: it needs %d MiB more with a reserve of %d MiB, and %d MiB are free in %s",
		syscall.ENOSPC, (more+reserve)>>20, reserve>>20, free>>20, s.cfg.Layout.ImageDir())
}

// tooMuch says that there is more than may be.
func (s *Store) tooMuch(how string) error {
	return fmt.Errorf("%w: it has, %smore than %s", ErrTooMuch, how, manifest.Quantity(s.cfg.MaxSize))
}
