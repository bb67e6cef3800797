package manifest

import "strings"

// Image is a disk image that disks of machines are made of.
type Image struct {
	// APIVersion is maqet.io/v1alpha1.
	APIVersion string `json:"apiVersion"`
	// Kind is Image.
	Kind Kind `json:"kind"`
	// Metadata names the image.
	Metadata Metadata `json:"metadata"`
	// Spec says what the image should be.
	Spec ImageSpec `json:"spec"`
}

// ImageSpec says where an image comes from and how it is recognised. At most
// one of SHA256 and SHA512 is given.
type ImageSpec struct {
	// Source is a file, or an http or https URL. One that ends in .xz, .gz or
	// .zst is unpacked.
	Source string `json:"source"`
	// SHA256 and SHA512 are digests, in hex, of the source as it is published,
	// which is before unpacking. One of them is required with a URL. A file
	// without one counts as it is when it is first needed.
	SHA256 string `json:"sha256,omitempty"`
	SHA512 string `json:"sha512,omitempty"`
	// Format is qcow2 or raw: what the image is, unpacked. It is never guessed.
	Format DiskFormat `json:"format"`
}

// The names of digests.
const (
	SHA256 = "sha256"
	SHA512 = "sha512"
)

// Digest is "sha256:HEX" or "sha512:HEX"; empty where none is given.
func (s ImageSpec) Digest() string {
	switch {
	case s.SHA256 != "":
		return SHA256 + ":" + s.SHA256
	case s.SHA512 != "":
		return SHA512 + ":" + s.SHA512
	default:
		return ""
	}
}

// IsURL tells whether the source is fetched over the network.
func (s ImageSpec) IsURL() bool { return isURL(s.Source) }

func isURL(source string) bool { return strings.Contains(source, "://") }

// ShortDigest is a digest for reading: its name and the first 12 digits.
func ShortDigest(digest string) string {
	const short = 12
	name, hex, ok := strings.Cut(digest, ":")
	if !ok || len(hex) <= short {
		return digest
	}
	return name + ":" + hex[:short]
}
