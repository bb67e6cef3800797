package state

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The buckets of the database.
const (
	bucketMeta       = "meta"
	bucketMachines   = "machines"
	bucketSnapshots  = "snapshots"
	bucketImages     = "images"
	bucketQuarantine = "quarantine"
)

// Tx is one transaction. It is good until the function it was given to returns,
// and only for one goroutine. What it returns is a copy and may be kept.
type Tx struct {
	contents *contents
	writable bool
	// changes are what is to be written; a nil value deletes.
	changes map[place][]byte
}

func newTx(c *contents, writable bool) *Tx {
	return &Tx{contents: c, writable: writable, changes: map[place][]byte{}}
}

// Warnings are what is wrong with the database although the transaction works:
// records that were found damaged, each wrapping ErrDamaged. A damaged record
// is treated as absent.
func (tx *Tx) Warnings() []error { return slices.Clone(tx.contents.warnings) }

// Machine is the record of a machine; nil when there is none.
func (tx *Tx) Machine(name string) (*Machine, error) {
	return get[Machine](tx, place{bucketMachines, name})
}

// Machines are all machines, sorted by name.
func (tx *Tx) Machines() ([]*Machine, error) { return list[Machine](tx, bucketMachines) }

// PutMachine remembers m under the name of its object.
func (tx *Tx) PutMachine(m *Machine) error {
	return tx.put(place{bucketMachines, m.Object.Metadata.Name}, m)
}

// DeleteMachine forgets a machine. One that is not there is no error.
func (tx *Tx) DeleteMachine(name string) error { return tx.remove(place{bucketMachines, name}) }

// Snapshot is the record of a Snapshot object; nil when there is none.
func (tx *Tx) Snapshot(name string) (*Snapshot, error) {
	return get[Snapshot](tx, place{bucketSnapshots, name})
}

// Snapshots are all Snapshot objects, sorted by name.
func (tx *Tx) Snapshots() ([]*Snapshot, error) { return list[Snapshot](tx, bucketSnapshots) }

// SnapshotsOf are the Snapshot objects of one machine, sorted by name.
func (tx *Tx) SnapshotsOf(vm string) ([]*Snapshot, error) {
	all, err := tx.Snapshots()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(s *Snapshot) bool { return s.Object.Spec.VirtualMachine != vm }), nil
}

// PutSnapshot remembers s under the name of its object.
func (tx *Tx) PutSnapshot(s *Snapshot) error {
	return tx.put(place{bucketSnapshots, s.Object.Metadata.Name}, s)
}

// DeleteSnapshot forgets a Snapshot object. One that is not there is no error.
func (tx *Tx) DeleteSnapshot(name string) error { return tx.remove(place{bucketSnapshots, name}) }

// Image is the record of an Image object; nil when there is none.
func (tx *Tx) Image(name string) (*Image, error) { return get[Image](tx, place{bucketImages, name}) }

// Images are all Image objects, sorted by name.
func (tx *Tx) Images() ([]*Image, error) { return list[Image](tx, bucketImages) }

// PutImage remembers i under the name of its object.
func (tx *Tx) PutImage(i *Image) error {
	return tx.put(place{bucketImages, i.Object.Metadata.Name}, i)
}

// DeleteImage forgets an Image object. One that is not there is no error.
func (tx *Tx) DeleteImage(name string) error { return tx.remove(place{bucketImages, name}) }

// String names a place as people do. A name out of a damaged database may hold
// anything, so it is quoted when it is more than plain letters.
func (at place) String() string {
	kind, name := at.bucket, at.key
	switch kind {
	case bucketMachines:
		kind = "machine"
	case bucketSnapshots:
		kind = "snapshot"
	case bucketImages:
		kind = "image"
	}
	if quoted := strconv.Quote(name); len(quoted) != len(name)+len(`""`) || strings.ContainsAny(name, " ;:") {
		name = quoted
	}
	return kind + " " + name
}

// envelope is what lies at a place in this transaction; nil when nothing does.
func (tx *Tx) envelope(at place) []byte {
	if changed, ok := tx.changes[at]; ok {
		return changed
	}
	return tx.contents.records[at]
}

// get reads one record; nil when there is none.
func get[T any](tx *Tx, at place) (*T, error) {
	envelope := tx.envelope(at)
	if envelope == nil {
		return nil, nil //nolint:nilnil // absence is an ordinary answer here.
	}
	record := new(T)
	if err := unseal(at, envelope, record); err != nil {
		return nil, &Error{Op: "read", Object: at.String(), Err: err, Hint: hint(err, "")}
	}
	return record, nil
}

// list reads all records of a bucket, sorted by key.
func list[T any](tx *Tx, bucket string) ([]*T, error) {
	keys := map[string]bool{}
	for at := range tx.contents.records {
		if at.bucket == bucket {
			keys[at.key] = true
		}
	}
	for at := range tx.changes {
		if at.bucket == bucket {
			keys[at.key] = true
		}
	}
	all := make([]*T, 0, len(keys))
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		record, err := get[T](tx, place{bucket, key})
		if err != nil {
			return nil, err
		}
		if record != nil {
			all = append(all, record)
		}
	}
	return all, nil
}

// put writes a record, over an older one if there is one. A record in
// quarantine at the same place is thereby replaced as well.
func (tx *Tx) put(at place, record any) error {
	if err := tx.mayChange("write", at); err != nil {
		return err
	}
	envelope, err := seal(at, record)
	if err != nil {
		return &Error{Op: "write", Object: at.String(), Err: err}
	}
	tx.changes[at] = envelope
	tx.release(at)
	return nil
}

// remove deletes a record, and one in quarantine at the same place.
func (tx *Tx) remove(at place) error {
	if err := tx.mayChange("delete", at); err != nil {
		return err
	}
	tx.changes[at] = nil
	tx.release(at)
	return nil
}

// release ends the quarantine of the record that belongs to a place.
func (tx *Tx) release(at place) {
	if q := quarantined(at); tx.envelope(q) != nil {
		tx.changes[q] = nil
	}
}

// changed are the changes that make a difference.
func (tx *Tx) changed() map[place][]byte {
	maps.DeleteFunc(tx.changes, func(at place, envelope []byte) bool {
		old, ok := tx.contents.records[at]
		return ok == (envelope != nil) && bytes.Equal(old, envelope)
	})
	return tx.changes
}

// mayChange refuses to write without the right to, under a name that the
// database cannot hold, and over the record of a newer maqet.
func (tx *Tx) mayChange(op string, at place) error {
	refuse := func(err error) error {
		return &Error{Op: op, Object: at.String(), Err: err, Hint: hint(err, "")}
	}
	const longest = 1 << 10
	switch {
	case !tx.writable:
		return refuse(ErrReadOnly)
	case at.key == "" || len(at.key) > longest:
		return refuse(fmt.Errorf("a name has 1 to %d bytes, this one %d", longest, len(at.key)))
	}
	if old := tx.envelope(at); old != nil {
		if err := understood(at, old); err != nil {
			return refuse(err)
		}
	}
	return nil
}
