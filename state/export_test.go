package state

import (
	"bytes"
	"encoding/binary"
)

// Examined is what examining a database file in memory finds.
type Examined struct {
	// Records are the sound records by place, such as "machine web".
	Records map[string]string
	// Damage is what was found wrong.
	Damage []error
}

// Examine examines a database file in memory.
func Examine(data []byte) (Examined, error) {
	c, err := examine(data)
	if err != nil {
		return Examined{}, err
	}
	e := Examined{Records: map[string]string{}, Damage: c.damage}
	for at, envelope := range c.records {
		e.Records[at.String()] = string(envelope)
	}
	return e, nil
}

func reseal(at place, version uint16, payload string) []byte {
	envelope := make([]byte, envelopeHeader, envelopeHeader+len(payload))
	binary.BigEndian.PutUint16(envelope[envelopeSum:], version)
	envelope = append(envelope, payload...)
	binary.BigEndian.PutUint32(envelope, checksum(at, envelope[envelopeSum:]))
	return envelope
}

// Future rewrites the record of a machine, or the inventory when name is
// empty, as a newer maqet would: sealed soundly, with a version or a key that
// this one does not know.
func Future(path, name string, version uint16, payload string) error {
	at := place{bucketMachines, name}
	if name == "" {
		at = inventoryPlace()
	}
	data, _, err := readDatabase(path)
	if err != nil {
		return err
	}
	c, err := examine(data)
	if err != nil {
		return err
	}
	envelope := reseal(at, version, payload)
	changes := map[place][]byte{at: envelope}
	if name != "" {
		c.add(at, envelope)
		if changes[inventoryPlace()], err = seal(inventoryPlace(), c.inventory); err != nil {
			return err
		}
	}
	b, err := openBolt(path, 0, 0)
	if err != nil {
		return err
	}
	defer b.close() //nolint:errcheck // the write's error is what counts.
	return b.write(changes)
}

// Users is how many updates share the current opening.
func (s *Store) Users() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == nil {
		return 0
	}
	return s.session.users
}

// Backdate replaces words in a machine's record by others of the same length,
// and seals it soundly: as a page does that was never written to the disk.
func Backdate(data []byte, name, now, before string) bool {
	w, err := walk(data)
	if err != nil {
		return false
	}
	at := place{bucketMachines, name}
	envelope := w.records[at]
	from := bytes.Index(envelope, []byte(now))
	if from < 0 || len(now) != len(before) {
		return false
	}
	copy(envelope[from:], before)
	binary.BigEndian.PutUint32(envelope, checksum(at, envelope[envelopeSum:]))
	return true
}

// Corrupt changes one byte within the payload of a machine's record, wherever
// that lies, and leaves everything around it sound.
func Corrupt(data []byte, name string) bool {
	w, err := walk(data)
	if err != nil {
		return false
	}
	// The record is a part of data itself, so this changes the file's image.
	envelope := w.records[place{bucketMachines, name}]
	if envelope == nil {
		return false
	}
	envelope[len(envelope)/2] ^= 0x20
	return true
}

// Recalls tells whether a View would not read the file again.
func (s *Store) Recalls() bool { return s.recall() != nil }
