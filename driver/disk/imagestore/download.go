package imagestore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
)

// maxTries is how often in a row a server is asked again without having sent
// anything useful.
const maxTries = 4

// fetchURL gets an image over the network, verifies it, and unpacks it.
func (s *Store) fetchURL(ctx context.Context, spec manifest.ImageSpec, key string, t *transfer) error {
	const op = "fetch"
	d, err := s.openPart(spec, key, t)
	if err != nil {
		return fail(spec, op, err, "")
	}
	defer func() { _ = d.part.Close() }() // what was written is read again before it is used
	if err := d.whole(ctx); err != nil {
		return fail(spec, op, err, hintOf(err))
	}
	kind := manifest.Compression(spec.Source)
	if kind == "" {
		if err := s.keep(ctx, spec, spec.Digest(), d.part.Name(), t); err != nil {
			return fail(spec, "keep", err, "")
		}
		return fail(spec, "keep", d.forget(), "")
	}
	if err := s.unpackPart(ctx, spec, kind, d, key, t); err != nil {
		return fail(spec, "unpack", err, hintOf(err))
	}
	return fail(spec, "keep", d.forget(), "")
}

// unpackPart makes an image of a part that is whole.
func (s *Store) unpackPart(ctx context.Context, spec manifest.ImageSpec, kind string, d *download, key string, t *transfer) error {
	if _, err := d.part.Seek(0, io.SeekStart); err != nil {
		return err
	}
	to, err := s.temp(key)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(to.Name()) }() // gone already once it was renamed
	defer func() { _ = to.Close() }()
	t.part("unpacking", 0, d.size)
	if err := s.unpack(ctx, kind, &counting{d.part, t}, to); err != nil {
		return err
	}
	return s.keep(ctx, spec, spec.Digest(), to.Name(), t)
}

// download is one image being fetched into its part.
type download struct {
	store *Store
	spec  manifest.ImageSpec
	t     *transfer
	// part is the file, size what it holds, sum the hash of that.
	part   *os.File
	record partRecord
	size   int64
	sum    hash.Hash
	// old tells that some of it is of an earlier try, of which nobody knows
	// whether it is of the same version.
	old bool
}

// openPart opens the part of an image with what an earlier try left in it.
func (s *Store) openPart(spec manifest.ImageSpec, key string, t *transfer) (*download, error) {
	part, err := os.OpenFile(s.cfg.Layout.ImagePart(key), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	d := &download{store: s, spec: spec, t: t, part: part}
	// A record that cannot be read is none: then the server is not told which
	// version the part is of, and the digest decides.
	if r, err := read[partRecord](d.recordPath()); err == nil && r != nil && r.Version <= recordVersion {
		d.record = *r
	}
	return d, nil
}

func (d *download) recordPath() string {
	return d.store.cfg.Layout.ImagePartRecord(layout.ImageKey(d.spec.Digest()))
}

// whole fetches until the part has the right digest.
func (d *download) whole(ctx context.Context) error {
	if err := d.reread(ctx); err != nil {
		return err
	}
	if d.size > 0 && sumOf(d.sum) == d.spec.Digest() {
		return nil // It was whole already, and something went wrong after that.
	}
	for {
		if err := d.insist(ctx); err != nil {
			return err
		}
		got := sumOf(d.sum)
		if got == d.spec.Digest() {
			return nil
		}
		// What is wrong must not be gone on with.
		again := d.old
		if err := d.restart(); err != nil {
			return err
		}
		if !again {
			return &Error{
				Source: Show(d.spec), Op: "fetch", Err: wrongDigest(d.spec.Digest(), got),
				Hint: "nothing of it is kept; compare with the digest that its publisher lists for just this file, and see whether the URL still leads to it",
			}
		}
	}
}

// reread hashes what an earlier try left.
func (d *download) reread(ctx context.Context) error {
	d.sum = newHash(d.spec.Digest())
	info, err := d.part.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	d.old = true
	d.t.part("reading what was fetched before", 0, info.Size())
	buffer := make([]byte, block)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := d.part.Read(buffer)
		d.t.add(n)
		d.sum.Write(buffer[:n])
		d.size += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// restart begins again with nothing.
func (d *download) restart() error {
	if err := d.part.Truncate(0); err != nil {
		return err
	}
	if _, err := d.part.Seek(0, io.SeekStart); err != nil {
		return err
	}
	d.size, d.old, d.record = 0, false, partRecord{}
	d.sum.Reset()
	return remove(d.recordPath())
}

// forget removes what was only needed to go on. An image that was not packed is
// the part itself, which has its final name by now.
func (d *download) forget() error {
	return errors.Join(remove(d.store.cfg.Layout.ImagePart(layout.ImageKey(d.spec.Digest()))), remove(d.recordPath()))
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// insist asks the server again and again, as long as that helps.
func (d *download) insist(ctx context.Context) error {
	pause := d.store.cfg.Timing.Backoff
	for tries := 1; ; tries++ {
		before := d.size
		err := d.attempt(ctx)
		if err == nil || ctx.Err() != nil || !mayPass(err) {
			return err
		}
		if d.size > before {
			tries, pause = 1, d.store.cfg.Timing.Backoff
		}
		if tries >= maxTries {
			return err
		}
		d.store.log.InfoContext(ctx, "fetching an image is tried again", "source", Show(d.spec), "err", redacted(d.spec, err), "bytes", d.size)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
		pause *= 2
	}
}

// mayPass tells whether the same may succeed a moment later.
func mayPass(err error) bool {
	status, ok := errors.AsType[*statusError](err)
	switch {
	case ok:
		return status.code >= 500 || status.code == http.StatusTooManyRequests || status.code == http.StatusRequestTimeout
	case errors.Is(err, ErrTooMuch), errors.Is(err, syscall.ENOSPC), errors.Is(err, errRedirect), isLocal(err):
		return false
	default:
		return true
	}
}

// isLocal tells of an error of this host's own files.
func isLocal(err error) bool {
	_, ok := errors.AsType[*fs.PathError](err)
	return ok
}

// attempt asks the server once, for what is missing.
func (d *download) attempt(ctx context.Context) error {
	watched, watch := watchFor(ctx, d.store.cfg.Timing.Stall)
	defer watch.end()
	req, err := d.request(watched)
	if err != nil {
		return err
	}
	resp, err := d.store.client().Do(req)
	if err != nil {
		return watch.cause(err)
	}
	defer func() { _ = resp.Body.Close() }() // there is nothing to lose in it
	watch.reset()
	done, err := d.begin(resp)
	if done || err != nil {
		return err
	}
	return watch.cause(d.receive(watch, resp))
}

// request asks for what is missing, of the version that the part is of.
func (d *download) request(ctx context.Context) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.spec.Source, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "maqet")
	// The digest is of what is published, so nothing may be packed on the way.
	req.Header.Set("Accept-Encoding", "identity")
	if d.size > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.size))
		if d.record.URL == d.urlKey() && d.record.Tag != "" {
			req.Header.Set("If-Range", d.record.Tag)
		}
	}
	return req, nil
}

// urlKey stands for the URL.
func (d *download) urlKey() string {
	sum := sha256.Sum256([]byte(d.spec.Source))
	return hex.EncodeToString(sum[:16])
}

// receive appends the body to the part.
func (d *download) receive(watch *stallWatch, resp *http.Response) error {
	buffer := make([]byte, 4*block)
	looked := d.size
	for {
		n, err := resp.Body.Read(buffer)
		if n > 0 {
			watch.got(n)
			if d.size+int64(n) > d.store.cfg.MaxSize {
				return d.store.tooMuch("")
			}
			if _, err := d.part.Write(buffer[:n]); err != nil {
				return err
			}
			d.sum.Write(buffer[:n])
			d.size += int64(n)
			d.t.add(n)
			if d.size-looked >= spaceStep {
				looked = d.size
				if err := d.store.room(0); err != nil {
					return err
				}
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
