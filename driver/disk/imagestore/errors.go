package imagestore

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/maqet/maqet/manifest"
)

// Error is an image with which something could not be done.
type Error struct {
	// Source is where the image comes from, or the digest of a stored one.
	Source string
	// Op is what was tried, such as "fetch".
	Op string
	// Err is the cause.
	Err error
	// Hint is what to do next; may be empty.
	Hint string
}

// Error is "fetch https://example.org/disk.qcow2: cause; hint".
func (e *Error) Error() string {
	text := e.Op + " " + e.Source + ": " + e.Err.Error()
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// The causes that an Error wraps besides those of the packages below.
var (
	// ErrDigest is a file whose digest is another than it should be.
	ErrDigest = errors.New("the digest is wrong")
	// ErrStalled is a server that sends nothing more.
	ErrStalled = errors.New("the server stalls")
	// ErrTooMuch is a server that sends more than it announced, or than may be.
	ErrTooMuch = errors.New("the source is too large")
	// ErrStatus is a server that answered with an error.
	ErrStatus = errors.New("the server refused")
	// ErrBusy is an image that another process fetches and does not get on with.
	ErrBusy = errors.New("another process fetches it and gets on no more")
	// ErrChanged is a file that was written to while it was read.
	ErrChanged = errors.New("the file changed while it was read")
)

// Show is a source as it may be shown and logged: the part of a URL behind the
// question mark may hold a key to what is private.
func Show(spec manifest.ImageSpec) string {
	if !spec.IsURL() {
		return spec.Source
	}
	u, err := url.Parse(spec.Source)
	if err != nil {
		return "the URL"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// wrongDigest says which digest a source has and which it should have.
func wrongDigest(want, got string) error {
	return fmt.Errorf("%w: it has %s and should have %s", ErrDigest, got, want)
}

// fail makes an Error of err, unless it is one already.
func fail(spec manifest.ImageSpec, op string, err error, hint string) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	return &Error{Source: Show(spec), Op: op, Err: redacted(spec, err), Hint: hint}
}

// redacted takes the query of a URL out of an error's words, which net/http puts
// the whole URL into.
func redacted(spec manifest.ImageSpec, err error) error {
	if !spec.IsURL() || !strings.Contains(err.Error(), "?") {
		return err
	}
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return failed.Err
	}
	return err
}
