package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/maqet/maqet/manifest"
)

// ErrUnfit is wrapped when a file that comes from elsewhere must not be used as
// the image that it is said to be.
var ErrUnfit = errors.New("the file cannot be used as an image")

// Inspect looks whether a file that a stranger made can be used as an image of
// the given format, and nothing else, by itself and by what qemu-img says of it.
// An image must be complete: one that names a backing file or a data file could
// show any file of this host to a guest. The format is compared, never guessed.
//
// The error wraps ErrUnfit and says in words what is wrong.
func (i *Images) Inspect(ctx context.Context, path string, format manifest.DiskFormat) (Info, error) {
	const op = "check"
	path, err := absolute(op, path)
	if err != nil {
		return Info{}, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return Info{}, fail(path, op, err)
	}
	if st.Size() == 0 {
		return Info{}, unfit(path, "it is empty", "see whether its source is what was meant")
	}
	// Before qemu-img is asked: it would open what a hostile image names.
	h, err := ReadHeader(path)
	if err != nil {
		return Info{}, &Error{Path: path, Op: op, Err: fmt.Errorf("%w: %w", ErrUnfit, err)}
	}
	if err := h.fit(path, format); err != nil {
		return Info{}, err
	}
	args := []string{"info", "--output=json"}
	if format == manifest.FormatQcow2 {
		args = append(args, "-f", "qcow2")
	}
	out, err := i.run(ctx, append(args, path)...)
	if err != nil {
		return Info{}, fail(path, op, err)
	}
	info, err := parseInfo(out)
	if err != nil {
		return Info{}, fail(path, op, err)
	}
	info.Path = path
	return info, tellsTheSame(path, out, info, format)
}

func unfit(path, what, hint string) error {
	return &Error{Path: path, Op: "check", Err: fmt.Errorf("%w: %s", ErrUnfit, what), Hint: hint}
}

// complete is how an image is made complete in itself.
const complete = "make a complete copy with: qemu-img convert -O qcow2 IN OUT"

// fit says why an image with that header must not be used; nil when it may be.
func (h Header) fit(path string, format manifest.DiskFormat) error {
	switch {
	case h.Format == "luks" || h.Encryption != "":
		how := h.Encryption
		if how == "" {
			how = "LUKS"
		}
		return unfit(path, "it is encrypted ("+how+"), and maqet has no key for it", "decrypt it with qemu-img convert first")
	case h.Format != string(format):
		return wrongFormat(path, h.Format, format)
	case h.Backing != "":
		return unfit(path, fmt.Sprintf("it names the backing file %q, and would show its content to guests", h.Backing), complete)
	case h.DataFile:
		return unfit(path, "it keeps its data in an external data file, and would show that file's content to guests", complete)
	case h.Corrupt:
		return unfit(path, "QEMU has marked it as corrupt", "repair it with: qemu-img check -r all FILE")
	default:
		return nil
	}
}

// wrongFormat says that a file is of another format than it should be.
func wrongFormat(path, is string, want manifest.DiskFormat) error {
	hint := "correct the format, or the source"
	switch is {
	case "qcow2", "raw":
	case "xz", "gzip", "zstd":
		hint = "let the source end in .xz, .gz or .zst, by which packed files are known, or unpack it first"
	default:
		hint = "make a qcow2 of it with: qemu-img convert -O qcow2 IN OUT"
	}
	return unfit(path, fmt.Sprintf("it should be %s and is %s", want, is), hint)
}

// tellsTheSame holds what qemu-img says against what the header said.
func tellsTheSame(path string, out []byte, info Info, format manifest.DiskFormat) error {
	var more struct {
		Encrypted bool `json:"encrypted"`
		Specific  struct {
			Data struct {
				DataFile string `json:"data-file"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(out, &more); err != nil {
		return fail(path, "check", fmt.Errorf("qemu-img info: decode: %w", err))
	}
	h := Header{Format: info.Format, Backing: info.Backing, DataFile: more.Specific.Data.DataFile != ""}
	if more.Encrypted {
		h.Encryption = "encrypted"
	}
	return h.fit(path, format)
}
