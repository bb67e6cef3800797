package state

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// recordVersion is the version of the records this maqet writes, and the
// highest that it reads. It grows when an older maqet would misread a record.
const recordVersion = 1

// An envelope is a checksum (CRC-32C, 4 bytes), the record's version (2 bytes)
// and the record in JSON. The checksum is over the record's place as well, so
// that a sound record in another one's place is damage too. These 6 bytes stay
// the same in every version.
const (
	envelopeSum    = 4
	envelopeHeader = envelopeSum + 2
)

// errChecksum is an envelope whose content is not what was written.
var errChecksum = errors.New("the checksum does not match")

// place is where a record lies.
type place struct {
	bucket string
	key    string
}

// seal puts a record into its envelope.
func seal(at place, record any) ([]byte, error) {
	payload, err := json.Marshal(record)
	if err != nil {
		return nil, err
	}
	out := make([]byte, envelopeHeader, envelopeHeader+len(payload))
	binary.BigEndian.PutUint16(out[envelopeSum:], recordVersion)
	out = append(out, payload...)
	binary.BigEndian.PutUint32(out, checksum(at, out[envelopeSum:]))
	return out, nil
}

// checksum is over a record's place, version and content.
func checksum(at place, body []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, []byte(at.bucket+"\x00"+at.key+"\x00"))
	return crc32.Update(sum, table, body)
}

// verify tells whether an envelope is as it was written.
func verify(at place, envelope []byte) error {
	if len(envelope) < envelopeHeader {
		return fmt.Errorf("%w: only %d bytes are left", errChecksum, len(envelope))
	}
	if binary.BigEndian.Uint32(envelope) != checksum(at, envelope[envelopeSum:]) {
		return errChecksum
	}
	return nil
}

// unseal takes a record out of its envelope. It fails with ErrNewer for what
// this maqet does not understand, a key that it does not know included: it
// would lose that key when it writes the record again.
func unseal(at place, envelope []byte, record any) error {
	if err := verify(at, envelope); err != nil {
		return errors.Join(ErrDamaged, err)
	}
	version := binary.BigEndian.Uint16(envelope[envelopeSum:])
	if version > recordVersion {
		return fmt.Errorf("%w: record version %d, this one knows %d", ErrNewer, version, recordVersion)
	}
	decoder := json.NewDecoder(bytes.NewReader(envelope[envelopeHeader:]))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(record); err != nil {
		return fmt.Errorf("%w: %w", ErrNewer, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: more follows the record", ErrNewer)
	}
	return nil
}
