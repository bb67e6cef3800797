package disk

import (
	"context"
	"errors"
	"fmt"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// Kind is one way in which the data of disks is stored. Its methods may be called
// from any number of goroutines.
type Kind interface {
	// Name is one word for people, such as "file".
	Name() string
	// Holds tells whether d is stored in this way. It looks at nothing but d.
	Holds(d *manifest.Disk) bool
	// Source says where the data of d is. Made is the path of the image that maqet
	// would make for d. Nothing is looked at: the same d has the same source.
	Source(d *manifest.Disk, made string) Source
	// Look says how the storage is now. Deep asks the image itself, too, which may
	// take as long as the timing table gives to qemu-img. What keeps the disk from
	// being used is in the DiskFile's Err, in words.
	Look(ctx context.Context, d *manifest.Disk, src Source, deep bool) (driver.DiskFile, Info)
}

// Maker is a Kind whose storage maqet itself makes.
type Maker interface {
	Kind
	// Make makes the storage of d. What is there already is left as it is, and is
	// no error.
	Make(ctx context.Context, d *manifest.Disk, src Source) error
	// Grow makes the storage of d, which no QEMU has open, as large as d says. It
	// never makes it smaller.
	Grow(ctx context.Context, d *manifest.Disk, src Source) error
}

// Source is where the data of a disk is, and how QEMU opens it.
type Source struct {
	// Path is the file, device or socket of this host behind the disk; empty when
	// there is none.
	Path string
	// Name is the source as QEMU writes it: a path, or a URI.
	Name string
	// Options are those of the block node that opens it, without its name, in the
	// order in which they are shown. The first is the driver.
	Options []Option
}

// Option is one option of a block node. Value is a string, a bool, a number or
// further options.
type Option struct {
	Key   string
	Value any
}

// Kinds are the kinds that there are, each asked in turn.
type Kinds []Kind

// Of is the kind that stores d. The error is that there is none.
func (k Kinds) Of(d *manifest.Disk) (Kind, error) {
	for _, kind := range k {
		if kind.Holds(d) {
			return kind, nil
		}
	}
	return nil, fmt.Errorf("disk %s: %w", d.Name, ErrNoKind)
}

// Source is where the data of d is; see [Kind].
func (k Kinds) Source(d *manifest.Disk, made string) (Source, error) {
	kind, err := k.Of(d)
	if err != nil {
		return Source{}, err
	}
	return kind.Source(d, made), nil
}

// Look says how the storage of d is now; see [Kind].
func (k Kinds) Look(ctx context.Context, d *manifest.Disk, made string, deep bool) (driver.DiskFile, Info) {
	kind, err := k.Of(d)
	if err != nil {
		return driver.DiskFile{Path: made, Err: err.Error()}, Info{}
	}
	src := kind.Source(d, made)
	file, info := kind.Look(ctx, d, src, deep)
	file.Kind, file.Path = kind.Name(), src.Name
	return file, info
}

// Maker is the kind that stores d, if maqet makes such storage.
func (k Kinds) Maker(d *manifest.Disk) (Maker, error) {
	kind, err := k.Of(d)
	if err != nil {
		return nil, err
	}
	maker, ok := kind.(Maker)
	if !ok {
		return nil, fmt.Errorf("disk %s: its %s is not maqet's to make or to resize", d.Name, kind.Name())
	}
	return maker, nil
}

// ErrOfImage is wrapped when a disk of an image is to be made without it.
var ErrOfImage = errors.New("it is of an image, and can only be made of that")

// ErrNoKind is wrapped when no kind of storage knows a disk.
var ErrNoKind = errors.New("no kind of storage knows it")
