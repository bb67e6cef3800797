package manifest

import (
	"fmt"
	"strings"
)

// Lengths of names. A device name leaves room for the prefixes that make QEMU
// node names of it, which end at 31 characters.
const (
	maxName       = 63
	maxDeviceName = 24
)

var (
	nameSyntax       = newPattern(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	deviceNameSyntax = newPattern(`^[a-z]([-a-z0-9]*[a-z0-9])?$`)
	labelNameSyntax  = newPattern(`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`)
	subdomainSyntax  = newPattern(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
)

// ValidName says why s cannot name an object; nil when it can.
func ValidName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("a name must not be empty")
	case len(s) > maxName:
		return fmt.Errorf("%s is %d characters long; a name has at most %d", quote(s), len(s), maxName)
	case !nameSyntax.MatchString(s):
		return fmt.Errorf("%s is no name: use lower-case letters, digits and '-', beginning and ending with a letter or digit", quote(s))
	default:
		return nil
	}
}

// ValidMachineName says why s cannot name a machine; nil when it can. The name
// locks is taken by maqet's own folder beside the machines' in the run dir.
func ValidMachineName(s string) error {
	if s == "locks" {
		return fmt.Errorf("the name %s is taken by maqet itself; choose another", quote(s))
	}
	return ValidName(s)
}

// ValidSnapshotName says why s cannot name a snapshot; nil when it can. Digits
// alone would be taken by qemu-img for the number of another snapshot.
func ValidSnapshotName(s string) error {
	if s != "" && strings.Trim(s, "0123456789") == "" {
		return fmt.Errorf("%s has digits only, which qemu-img takes for another snapshot's number; add a letter", quote(s))
	}
	return ValidName(s)
}

// ValidDeviceName says why s cannot name a disk, nic or device; nil when it can.
func ValidDeviceName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("a name must not be empty")
	case len(s) > maxDeviceName:
		return fmt.Errorf("%s is %d characters long; a name of a disk, nic or device has at most %d", quote(s), len(s), maxDeviceName)
	case !deviceNameSyntax.MatchString(s):
		return fmt.Errorf("%s is no name of a disk, nic, filesystem or device: use lower-case letters, digits and '-', beginning with a letter and ending with a letter or digit", quote(s))
	default:
		return nil
	}
}

// validLabelKey says why s cannot be the key of a label or annotation.
func validLabelKey(s string) error {
	name := s
	if prefix, rest, ok := strings.Cut(s, "/"); ok {
		name = rest
		if len(prefix) > 253 || !subdomainSyntax.MatchString(prefix) {
			return fmt.Errorf("%s is no key: the part before '/' must be a lower-case DNS name of at most 253 characters", quote(s))
		}
	}
	if len(name) > maxName || !labelNameSyntax.MatchString(name) {
		return fmt.Errorf("%s is no key: use at most %d letters, digits, '-', '_' and '.', beginning and ending with a letter or digit", quote(s), maxName)
	}
	return nil
}

// validLabelValue says why s cannot be the value of a label.
func validLabelValue(s string) error {
	if s == "" || (len(s) <= maxName && labelNameSyntax.MatchString(s)) {
		return nil
	}
	return fmt.Errorf("%s is no label value: use at most %d letters, digits, '-', '_' and '.', beginning and ending with a letter or digit; longer notes belong into annotations", quote(s), maxName)
}

// quote quotes s for an error, shortened where it is very long.
func quote(s string) string {
	const most = 60
	if r := []rune(firstBytes(s, 4*most+4)); len(r) > most {
		return fmt.Sprintf("%q...", string(r[:most]))
	}
	return fmt.Sprintf("%q", s)
}

// firstBytes is s or its first n bytes, so that a line of megabytes is not
// turned into runes only to be cut.
func firstBytes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
