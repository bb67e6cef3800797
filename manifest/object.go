package manifest

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Object is one loaded manifest object, resolved: every default filled in and
// every path absolute. Exactly one of VM, Snapshot and Image is set.
type Object struct {
	VM       *VirtualMachine
	Snapshot *Snapshot
	Image    *Image
	// Position is where the object's document begins.
	Position Position
	// Digest is the SHA-256, in hex, of the resolved object's JSON. Two objects
	// that want the same have the same digest, however they are written.
	Digest string

	// places are the positions of the fields that set-wide admission and the
	// host's check speak of.
	places map[string]Position
}

// NewObject wraps an already resolved object that came from no file, such as a
// stored record. v is a *VirtualMachine, a *Snapshot or an *Image.
func NewObject(v any) (*Object, error) {
	o := &Object{}
	switch v := v.(type) {
	case *VirtualMachine:
		o.VM = v
	case *Snapshot:
		o.Snapshot = v
	case *Image:
		o.Image = v
	default:
		return nil, fmt.Errorf("%T is no manifest object", v)
	}
	digest, err := digestOf(v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Key(), err)
	}
	o.Digest = digest
	return o, nil
}

// digestOf is the SHA-256 of v's JSON; encoding/json sorts map keys and writes
// struct fields in their order, so equal values give equal text.
func digestOf(v any) (string, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("digest: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// Key names the object.
func (o *Object) Key() ObjectKey {
	switch {
	case o.VM != nil:
		return ObjectKey{KindVirtualMachine, o.VM.Metadata.Name}
	case o.Snapshot != nil:
		return ObjectKey{KindSnapshot, o.Snapshot.Metadata.Name}
	default:
		return ObjectKey{KindImage, o.Image.Metadata.Name}
	}
}

// value is the object itself.
func (o *Object) value() any {
	switch {
	case o.VM != nil:
		return o.VM
	case o.Snapshot != nil:
		return o.Snapshot
	default:
		return o.Image
	}
}

// place is the position of a field, or of the object where that is not known.
func (o *Object) place(path string) Position {
	if p, ok := o.places[path]; ok {
		return p
	}
	return o.Position
}

// PositionOf is the position of a field that only a host can judge, such as
// spec.machine.type, or of the nearest thing around it that has one.
func (o *Object) PositionOf(path string) Position {
	for path != "" {
		if p, ok := o.places[path]; ok {
			return p
		}
		path = path[:max(strings.LastIndexByte(path, '.'), 0)]
	}
	return o.Position
}

// ObjectKey names an object within a host: kind and name.
type ObjectKey struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
}

// String is "vm/web", "snap/base" or "img/debian".
func (k ObjectKey) String() string {
	switch k.Kind {
	case KindVirtualMachine:
		return "vm/" + k.Name
	case KindSnapshot:
		return "snap/" + k.Name
	case KindImage:
		return "img/" + k.Name
	default:
		return string(k.Kind) + "/" + k.Name
	}
}

// compare orders keys by kind, machines first, then by name.
func (k ObjectKey) compare(l ObjectKey) int {
	return cmp.Or(-cmp.Compare(k.Kind, l.Kind), cmp.Compare(k.Name, l.Name))
}

// Set is everything that was loaded.
type Set struct {
	// Objects are sorted by kind, machines first, then by name.
	Objects []*Object
	// Roots are the paths that were given, absolute and cleaned; symbolic links
	// are kept, since tools that swap a folder by a link must not look like
	// another owner. Standard input is "-".
	Roots []string
	// Complete is true when every listed folder and file was read and every
	// document in them is valid. Only then does the absence of an object prove
	// that nobody wants it.
	Complete bool
	// Warnings are worth saying but refuse nothing.
	Warnings Errors
	// Files are the files that were read, as they are called in positions.
	Files []string
}

// VM is the machine of that name, or nil.
func (s *Set) VM(name string) *VirtualMachine {
	if o := s.Lookup(ObjectKey{KindVirtualMachine, name}); o != nil {
		return o.VM
	}
	return nil
}

// VMs are the machines, by name.
func (s *Set) VMs() []*VirtualMachine {
	var all []*VirtualMachine
	for _, o := range s.Objects {
		if o.VM != nil {
			all = append(all, o.VM)
		}
	}
	return all
}

// Snapshots are the snapshots, by name.
func (s *Set) Snapshots() []*Snapshot {
	var all []*Snapshot
	for _, o := range s.Objects {
		if o.Snapshot != nil {
			all = append(all, o.Snapshot)
		}
	}
	return all
}

// Images are the images, by name.
func (s *Set) Images() []*Image {
	var all []*Image
	for _, o := range s.Objects {
		if o.Image != nil {
			all = append(all, o.Image)
		}
	}
	return all
}

// Lookup is the object of that key, or nil.
func (s *Set) Lookup(key ObjectKey) *Object {
	i, found := slices.BinarySearchFunc(s.Objects, key, func(o *Object, k ObjectKey) int { return o.Key().compare(k) })
	if !found {
		return nil
	}
	return s.Objects[i]
}

// sortObjects puts objects into the order Set promises.
func sortObjects(objects []*Object) {
	slices.SortStableFunc(objects, func(a, b *Object) int {
		return cmp.Or(a.Key().compare(b.Key()), a.Position.compare(b.Position))
	})
}
