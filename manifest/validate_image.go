package manifest

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"path"
	"strings"
)

// image looks at an Image.
func (v *validator) image(i *Image) {
	v.metadata(i.Metadata, ValidName)
	v.check("spec.source", i.Spec.Source, validSource)
	v.digest("spec.sha256", i.Spec.SHA256, 32)
	v.digest("spec.sha512", i.Spec.SHA512, 64)
	switch {
	case i.Spec.SHA256 != "" && i.Spec.SHA512 != "":
		v.fault("spec.sha512", "an image has one digest, and sha256 is given too", "remove one of them")
	case i.Spec.Digest() == "" && i.Spec.IsURL() && !v.isBroken("spec.sha256") && !v.isBroken("spec.sha512"):
		v.fault("spec", "a URL needs sha256 or sha512", "copy the digest of just that file from where its publisher lists them, such as SHA256SUMS")
	}
}

// digest looks at a digest of that many bytes.
func (v *validator) digest(path, text string, size int) {
	if text == "" {
		return
	}
	if _, err := hex.DecodeString(text); err != nil || len(text) != 2*size {
		v.fault(path, fmt.Sprintf("%s is no such digest", quote(text)), fmt.Sprintf("it has %d hexadecimal digits and nothing else", 2*size))
	}
}

// packed are the endings of files that hold other files, or are packed in a way
// that maqet does not unpack, by which they are refused before any work.
var packed = []string{".tar", ".tgz", ".txz", ".zip", ".7z", ".bz2", ".rar", ".ova", ".lzma", ".lz4", ".Z"}

// validSource says why source cannot be an image's source; nil when it can.
func validSource(source string) error {
	at := source
	if isURL(source) {
		u, err := url.Parse(source)
		switch {
		case err != nil || u.Host == "":
			return fmt.Errorf("is no URL; write one such as \"https://example.org/disk.qcow2\"")
		case u.Scheme != "http" && u.Scheme != "https":
			return fmt.Errorf("the scheme %s is not known; use http, https, or the path of a file", quote(u.Scheme))
		case u.User != nil:
			return fmt.Errorf("a URL must not hold a password or user name, since manifests are shown; fetch the file yourself and name its path")
		case u.Fragment != "":
			return fmt.Errorf("the part behind # is never sent to a server; remove it")
		}
		at = u.Path
	}
	at = strings.TrimSuffix(at, "."+Compression(source))
	if ending := path.Ext(at); ending != "" {
		for _, p := range packed {
			if strings.EqualFold(ending, p) {
				return fmt.Errorf("%s is no image but an archive, or packed in a way that is not known; unpack it first: .xz, .gz and .zst are unpacked", quote(path.Base(at)))
			}
		}
	}
	return nil
}

// Compression is how a source is packed by its name: xz, gz, zst, or empty.
func Compression(source string) string {
	if isURL(source) {
		u, err := url.Parse(source)
		if err != nil {
			return ""
		}
		source = u.Path
	}
	switch ending := strings.TrimPrefix(path.Ext(source), "."); ending {
	case "xz", "gz", "zst":
		return ending
	default:
		return ""
	}
}
