package state

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"
)

// databaseVersion is the version of the database this maqet writes, and the
// highest that it reads: its buckets and its inventory.
const databaseVersion = 1

// contents is everything a database holds, read whole and checked.
type contents struct {
	// records are the envelopes of all records, the inventory excepted.
	records map[place][]byte
	// inventory tells what was there at the last commit.
	inventory inventory
	// damage is what was found wrong; it makes an Update begin a new file.
	damage []error
	// lost are the places whose records were found damaged.
	lost []place
	// warnings are what a transaction says: damage, and what is in quarantine.
	warnings []error
	// metas are the two meta pages as they were read, to tell whether the file
	// has changed since. Nil when there is no file.
	metas []byte
}

// inventory is written with every commit. bbolt would not notice a page that
// is older than it should be, or an entry that is gone.
type inventory struct {
	Version int `json:"version"`
	// Records counts the records, by bucket.
	Records map[string]int `json:"records"`
	// Digest is the sum over all records of a hash of place and checksum.
	Digest uint64 `json:"digest,string"`
}

// inventoryPlace is where the inventory lies.
func inventoryPlace() place { return place{bucketMeta, "inventory"} }

// quarantine is what is remembered of a record that was found damaged.
type quarantine struct {
	Found time.Time `json:"found"`
	// File is where the damaged database was set aside.
	File string `json:"file"`
}

// quarantined is where a damaged record of that place is remembered.
func quarantined(at place) place { return place{bucketQuarantine, at.bucket + "/" + at.key} }

// unquarantined is the place that a note in quarantine is about.
func unquarantined(at place) place {
	bucket, key, _ := strings.Cut(at.key, "/")
	return place{bucket, key}
}

// empty is what a database that does not exist holds.
func empty() *contents {
	return &contents{
		records:   map[place][]byte{},
		inventory: inventory{Version: databaseVersion, Records: map[string]int{}},
	}
}

// examine reads a database file that is in memory. It fails only for a database
// of a newer maqet; whatever else is wrong with it is damage.
func examine(data []byte) (*contents, error) {
	c := empty()
	w, err := walk(data)
	if err != nil {
		c.damaged(fmt.Errorf("nothing in it can be read: %w", err))
		return c, nil
	}
	c.metas = metaPages(data)
	for _, p := range w.problems {
		c.damaged(p)
	}
	stored, err := storedInventory(w.records)
	if errors.Is(err, ErrNewer) {
		return nil, err
	}
	if err != nil {
		c.damaged(err)
	}
	delete(w.records, inventoryPlace())
	for _, at := range slices.SortedFunc(maps.Keys(w.records), place.compare) {
		envelope := w.records[at]
		if err := verify(at, envelope); err != nil {
			c.damaged(fmt.Errorf("%s: %w", at, err))
			c.lost = append(c.lost, at)
			continue
		}
		c.add(at, envelope)
	}
	if err == nil {
		c.compareWith(stored)
	}
	c.warnQuarantined()
	return c, nil
}

func (at place) compare(other place) int {
	if by := strings.Compare(at.bucket, other.bucket); by != 0 {
		return by
	}
	return strings.Compare(at.key, other.key)
}

// damaged notes something that is wrong.
func (c *contents) damaged(err error) {
	c.damage = append(c.damage, err)
	c.warnings = append(c.warnings, damageWarnings([]error{err})...)
}

// damageWarnings say what was found wrong with the file as a whole.
func damageWarnings(damage []error) []error {
	warnings := make([]error, len(damage))
	for i, err := range damage {
		warnings[i] = &Error{
			Op: "read", Object: "database", Err: fmt.Errorf("%w: %w", ErrDamaged, err),
			Hint: "the damaged file is set aside with the next change, and all sound records are kept; running guests are not affected",
		}
	}
	return warnings
}

// quarantine leaves a note in the place of each record that was lost, until
// the record is written anew or deleted.
func (c *contents) quarantine(now time.Time, file string) error {
	for _, at := range c.lost {
		if at.bucket != bucketMachines && at.bucket != bucketSnapshots && at.bucket != bucketImages {
			continue
		}
		note, err := seal(quarantined(at), quarantine{Found: now, File: file})
		if err != nil {
			return err
		}
		c.add(quarantined(at), note)
	}
	return nil
}

// storedInventory is the inventory as it was written. A database without one
// is damaged, since each is made with it.
func storedInventory(records map[place][]byte) (inventory, error) {
	var stored inventory
	envelope := records[inventoryPlace()]
	if envelope == nil {
		return stored, errors.New("the inventory is missing")
	}
	if err := unseal(inventoryPlace(), envelope, &stored); err != nil {
		return stored, fmt.Errorf("inventory: %w", err)
	}
	if stored.Version > databaseVersion {
		return stored, fmt.Errorf("%w: database version %d, this one knows %d", ErrNewer, stored.Version, databaseVersion)
	}
	return stored, nil
}

// compareWith notes when the records are not those that were there at the last
// commit. Records known to be damaged explain a difference.
func (c *contents) compareWith(stored inventory) {
	if c.inventory.Digest == stored.Digest && maps.Equal(c.inventory.Records, stored.Records) || len(c.lost) > 0 {
		return
	}
	for _, bucket := range slices.Sorted(maps.Keys(stored.Records)) {
		if missing := stored.Records[bucket] - c.inventory.Records[bucket]; missing > 0 {
			c.damaged(fmt.Errorf("%s: %d of %d records are gone", bucket, missing, stored.Records[bucket]))
			return
		}
	}
	c.damaged(errors.New("some records are older than they should be"))
}

// remindFor is how long a lost record is warned of when nobody replaces it. It
// may be one whose very name was damaged, so that nobody can.
const remindFor = 7 * 24 * time.Hour

// warnQuarantined repeats what was lost until it is replaced.
func (c *contents) warnQuarantined() {
	for _, at := range slices.SortedFunc(maps.Keys(c.records), place.compare) {
		if at.bucket != bucketQuarantine {
			continue
		}
		var q quarantine
		if err := unseal(at, c.records[at], &q); err != nil {
			c.warnings = append(c.warnings, &Error{Op: "read", Object: at.String(), Err: err, Hint: hint(err, "")})
			continue
		}
		if time.Since(q.Found) > remindFor {
			continue
		}
		c.warnings = append(c.warnings, &Error{
			Op: "read", Object: unquarantined(at).String(),
			Err:  fmt.Errorf("%w: found at %s, set aside in %s", ErrDamaged, q.Found.Format(time.DateTime), q.File),
			Hint: "apply its manifest again, or delete it; its disks and a running guest are not affected",
		})
	}
}

// add takes in a record, in the place of an older one.
func (c *contents) add(at place, envelope []byte) {
	c.drop(at)
	c.records[at] = envelope
	c.inventory.Records[at.bucket]++
	c.inventory.Digest += recordHash(at, envelope)
}

// drop takes a record out.
func (c *contents) drop(at place) {
	old, ok := c.records[at]
	if !ok {
		return
	}
	delete(c.records, at)
	c.inventory.Digest -= recordHash(at, old)
	if c.inventory.Records[at.bucket]--; c.inventory.Records[at.bucket] == 0 {
		delete(c.inventory.Records, at.bucket)
	}
}

// recordHash is a record's part in the digest. The digest is their sum, so
// that a commit needs to look only at the records it changes.
func recordHash(at place, envelope []byte) uint64 {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(at.bucket + "\x00" + at.key + "\x00"))
	_, _ = sum.Write(envelope[:envelopeSum])
	return sum.Sum64()
}

// understood fails with ErrNewer for a sound record that a newer maqet wrote,
// and whose words this one would lose.
func understood(at place, envelope []byte) error {
	switch at.bucket {
	case bucketMachines:
		return unseal(at, envelope, new(Machine))
	case bucketSnapshots:
		return unseal(at, envelope, new(Snapshot))
	case bucketImages:
		return unseal(at, envelope, new(Image))
	default:
		return nil
	}
}
