package disk

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"time"
)

// SnapshotEntry is an internal snapshot as the table of a qcow2 has it. Two that are
// equal are of one snapshot with one content: QEMU never writes to what belongs to a
// snapshot, and gives another number and date to the next one.
type SnapshotEntry struct {
	ID, Tag string
	Date    time.Time
	// Size is what a guest saw of the disk at that time.
	Size int64

	table uint64
}

// The table of snapshots as docs/interop/qcow2.txt of QEMU lays it out.
const (
	snapshotEntrySize = 40
	snapshotSizeAt    = 8 // in the extra data
	maxSnapshots      = 65536
	maxSnapshotExtra  = 1024
	maxSnapshotName   = 1 << 16
	// snapshotReads is how often the table is read before it counts as damaged: QEMU
	// moves it when it takes or deletes another snapshot.
	snapshotReads = 8
)

// SnapshotOf reads the table of a qcow2 for a snapshot, also while QEMU has the image
// open. It fails with ErrNoSnapshot when there is none of that tag.
func SnapshotOf(path, tag string) (SnapshotEntry, error) {
	const op = "look at"
	f, err := os.Open(path) //nolint:gosec // G304: an image of a machine
	if err != nil {
		return SnapshotEntry{}, fail(path, op, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	var found SnapshotEntry
	for range snapshotReads {
		if found, err = findSnapshot(f, tag); err == nil {
			return found, nil
		}
	}
	return SnapshotEntry{}, fail(path, op, err)
}

// findSnapshot reads the table once. What is in it may be anything.
func findSnapshot(f io.ReaderAt, tag string) (SnapshotEntry, error) {
	var head [qcow2HeaderSize]byte
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return SnapshotEntry{}, fmt.Errorf("read the header: %w", err)
	}
	if string(head[:4]) != qcowMagic {
		return SnapshotEntry{}, ErrNotQcow2
	}
	size := int64(binary.BigEndian.Uint64(head[24:]))                                          //nolint:gosec // only compared
	count, at := binary.BigEndian.Uint32(head[60:]), int64(binary.BigEndian.Uint64(head[64:])) //nolint:gosec // a wrong one cannot be read
	if count > maxSnapshots || at < 0 {
		return SnapshotEntry{}, fmt.Errorf("the table of snapshots: %w", ErrDamaged)
	}
	for range count {
		s, next, err := readSnapshot(f, at, size)
		if err != nil {
			return SnapshotEntry{}, fmt.Errorf("the table of snapshots: %w", err)
		}
		if s.Tag == tag {
			return s, nil
		}
		at = next
	}
	return SnapshotEntry{}, fmt.Errorf("%w: %s", ErrNoSnapshot, tag)
}

// readSnapshot reads one entry and tells where the next one is. Size is the disk's
// own, which old entries do not tell.
func readSnapshot(f io.ReaderAt, at, size int64) (s SnapshotEntry, next int64, err error) {
	var entry [snapshotEntrySize]byte
	if _, err := f.ReadAt(entry[:], at); err != nil {
		return s, 0, err
	}
	idSize, nameSize := int64(binary.BigEndian.Uint16(entry[12:])), int64(binary.BigEndian.Uint16(entry[14:]))
	extra := int64(binary.BigEndian.Uint32(entry[36:]))
	if extra > maxSnapshotExtra || idSize+nameSize > maxSnapshotName {
		return s, 0, ErrDamaged
	}
	rest := make([]byte, extra+idSize+nameSize)
	if _, err := f.ReadAt(rest, at+snapshotEntrySize); err != nil {
		return s, 0, err
	}
	s = SnapshotEntry{
		table: binary.BigEndian.Uint64(entry[:]), Size: size,
		ID: string(rest[extra : extra+idSize]), Tag: string(rest[extra+idSize:]),
		Date: time.Unix(int64(binary.BigEndian.Uint32(entry[16:])), int64(binary.BigEndian.Uint32(entry[20:]))),
	}
	if extra >= snapshotSizeAt+8 {
		s.Size = int64(binary.BigEndian.Uint64(rest[snapshotSizeAt:])) //nolint:gosec // only compared
	}
	return s, at + (snapshotEntrySize+int64(len(rest))+7)/8*8, nil
}
