package driver

import "time"

// ImageState is what is true of one disk image on this host.
type ImageState struct {
	// Digest names the image, such as "sha256:HEX": that of its spec or, for a
	// file whose spec has none, that of the file when it was taken. Empty for such
	// a file that was never taken.
	Digest string `json:"digest,omitempty"`
	// Present is true when the image is stored, verified and checked.
	Present bool `json:"present"`
	// Path, Format and Size are of the stored image; Size is what a guest sees.
	Path   string `json:"path,omitempty"`
	Format string `json:"format,omitempty"`
	Size   int64  `json:"size,omitempty"`
	// Stored is how many bytes the image takes on the host.
	Stored int64 `json:"stored,omitempty"`
	// Pull is how far a process has come that fetches the image now; nil when none does.
	Pull *Transfer `json:"pull,omitempty"`
	// Failed is why the last try to fetch it failed; empty after a success.
	Failed string `json:"failed,omitempty"`
	// Changed tells that the source, a file without a digest, is another than it
	// was when it was taken.
	Changed bool `json:"changed,omitempty"`
	// Err is why the image cannot be used or could not be looked at; Hint is what to do.
	Err  string `json:"error,omitempty"`
	Hint string `json:"hint,omitempty"`
}

// Transfer is how far fetching an image has come.
type Transfer struct {
	// What is done now, such as "fetching" or "unpacking".
	What string `json:"what"`
	// Done and Total are bytes; Total is 0 while it is not known.
	Done  int64 `json:"done"`
	Total int64 `json:"total,omitempty"`
	// From is how many of Done were there before, from a try that was cut off.
	From int64 `json:"from,omitempty"`
	// Since is when this part of the work began.
	Since time.Time `json:"since"`
	// PID is the process that does it.
	PID int `json:"pid"`
	// Who is that process in words, such as "apply (pid 4711, ann)".
	Who string `json:"who,omitempty"`
}
