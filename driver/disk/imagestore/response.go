package imagestore

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// errRedirect is a redirect that is not followed.
var errRedirect = errors.New("the redirect is not followed")

// maxRedirects is how often a server may send elsewhere.
const maxRedirects = 10

// defaultTransport is net/http's own, with connections of this store only.
func defaultTransport() http.RoundTripper {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport
	}
	t = t.Clone()
	// What is published packed is wanted packed.
	t.DisableCompression = true
	// One connection serves one image. Kept for another, net/http would log what a
	// server sends beyond what it announced.
	t.DisableKeepAlives = true
	return t
}

// client asks servers. Whoever began in private is not led out of it.
func (s *Store) client() *http.Client {
	return &http.Client{
		Transport: s.cfg.Transport,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			switch {
			case len(via) > maxRedirects:
				return fmt.Errorf("%w: there were %d already", errRedirect, maxRedirects)
			case via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https":
				return fmt.Errorf("%w: from https to %s", errRedirect, req.URL.Scheme)
			default:
				return nil
			}
		},
	}
}

// statusError is a server that answered with an error.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return fmt.Sprintf("%v: %s", ErrStatus, e.text) }
func (e *statusError) Unwrap() error { return ErrStatus }

// begin takes what a response says of what follows. Done tells that nothing does.
func (d *download) begin(resp *http.Response) (done bool, err error) {
	switch resp.StatusCode {
	case http.StatusOK:
		// It is all of it: the server knows no ranges, or has another version now.
		if d.size > 0 {
			if err := d.restart(); err != nil {
				return false, err
			}
		}
		return false, d.announce(resp, max(resp.ContentLength, 0))
	case http.StatusPartialContent:
		from, total, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || from != d.size {
			if err := d.restart(); err != nil {
				return false, err
			}
			return false, fmt.Errorf("the server sent another part than was asked for: %q", resp.Header.Get("Content-Range"))
		}
		return false, d.announce(resp, total)
	case http.StatusRequestedRangeNotSatisfiable:
		if _, total, ok := contentRange(resp.Header.Get("Content-Range")); ok && total == d.size {
			return true, nil // There is no more of it.
		}
		if err := d.restart(); err != nil {
			return false, err
		}
		return false, errors.New("the server has less than was fetched before")
	default:
		return false, &statusError{code: resp.StatusCode, text: strings.TrimSpace(resp.Status)}
	}
}

// announce looks whether there is room for what will come, and remembers what is
// needed to go on with it.
func (d *download) announce(resp *http.Response, total int64) error {
	switch {
	case total > d.store.cfg.MaxSize:
		return d.store.tooMuch("")
	case total > 0:
		if err := d.store.room(total - d.size); err != nil {
			return err
		}
	}
	d.record = partRecord{Version: recordVersion, URL: d.urlKey(), Tag: tagOf(resp.Header), Total: total}
	if err := write(d.recordPath(), d.record); err != nil {
		return err
	}
	d.t.part("fetching", d.size, total)
	return nil
}

// tagOf is what a server recognises a version by. A weak tag is none: it may be the
// same for other bytes.
func tagOf(h http.Header) string {
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) {
		return tag
	}
	return h.Get("Last-Modified")
}

// contentRange reads "bytes 10-19/20" or "bytes */20". An unknown total is 0.
func contentRange(text string) (from, total int64, ok bool) {
	text, ok = strings.CutPrefix(text, "bytes ")
	if !ok {
		return 0, 0, false
	}
	span, all, ok := strings.Cut(text, "/")
	if !ok {
		return 0, 0, false
	}
	if all != "*" {
		n, err := strconv.ParseInt(all, 10, 64)
		if err != nil || n < 0 {
			return 0, 0, false
		}
		total = n
	}
	if span == "*" {
		return 0, total, all != "*"
	}
	first, last, ok := strings.Cut(span, "-")
	if !ok {
		return 0, 0, false
	}
	from, err := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	if err != nil || err2 != nil || from < 0 || to < from || total > 0 && to >= total {
		return 0, 0, false
	}
	return from, total, true
}
