package driver

import "time"

// SeedRecordVersion is the format of seed.json that this maqet writes.
const SeedRecordVersion = 1

// SeedRecord is what is remembered of the seed that a guest was started with. It
// lives with the disks.
type SeedRecord struct {
	// Version is the format of the file.
	Version int `json:"version"`
	// Renewals counts how often the guest was to provision again: each makes
	// another instance-id.
	Renewals int `json:"renewals,omitempty"`
	// Instance is the instance-id in the seed.
	Instance string `json:"instance"`
	// Digest is of the data that the guest was provisioned with.
	Digest string `json:"digest"`
	// At is when the seed with that data was made.
	At time.Time `json:"at"`
}

// Seed is how a machine with cloudInit is provisioned.
type Seed struct {
	// Instance is the instance-id that the guest was last started with, Applied the
	// digest of the data it was provisioned with then, and At when. All are empty
	// before the first start.
	Instance string
	Applied  string
	At       time.Time
	// Next is the instance-id of the next start: another one than Instance makes the
	// guest provision again.
	Next string
	// Wanted is the digest of the data that the manifest says now; empty when it
	// could not be read.
	Wanted string
	// Err is why not.
	Err string
}

// Provisioned tells whether the guest was ever started with a seed.
func (s *Seed) Provisioned() bool { return s != nil && s.Instance != "" }

// Renewing tells whether the guest will provision again at its next start.
func (s *Seed) Renewing() bool { return s.Provisioned() && s.Next != s.Instance }

// Drifted tells whether the guest was provisioned with other data than the manifest
// says now, and will not be provisioned again.
func (s *Seed) Drifted() bool {
	return s.Provisioned() && !s.Renewing() && s.Err == "" && s.Wanted != s.Applied
}
