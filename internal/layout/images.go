package layout

import (
	"encoding/hex"
	"path/filepath"
	"strings"
)

// digestSizes are the bytes of the digests that images go by.
var digestSizes = map[string]int{"sha256": 32, "sha512": 64} //nolint:gochecknoglobals // never written to

// ImageKey is a digest, such as sha256:HEX, as a part of a file's name: sha256-HEX.
func ImageKey(digest string) string { return strings.Replace(digest, ":", "-", 1) }

// ImageDigest is the digest that a key stands for; false for what is no key.
func ImageDigest(key string) (digest string, ok bool) {
	name, text, _ := strings.Cut(key, "-")
	raw, err := hex.DecodeString(text)
	if err != nil || text != strings.ToLower(text) || len(raw) == 0 || len(raw) != digestSizes[name] {
		return "", false
	}
	return name + ":" + text, true
}

// DigestOfImage is the digest of the image that a path leads to, by its name
// alone; false for what is no image's name.
func DigestOfImage(path string) (digest string, ok bool) {
	name := filepath.Base(path)
	return ImageDigest(strings.TrimSuffix(name, filepath.Ext(name)))
}
