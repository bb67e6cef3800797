package bench

import "fmt"

// Unit is what the figures of a case count.
type Unit int

// The units.
const (
	// Seconds are time.
	Seconds Unit = iota
	// Cores are processor time over time: 1 is one core, busy all the time.
	Cores
	// Bytes are memory.
	Bytes
)

// MarshalText names the unit for programs.
func (u Unit) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// String is the unit's name.
func (u Unit) String() string {
	switch u {
	case Seconds:
		return "seconds"
	case Cores:
		return "cores"
	case Bytes:
		return "bytes"
	default:
		return fmt.Sprintf("unit %d", int(u))
	}
}

// show is a figure with three digits that mean something.
func (u Unit) show(v float64) string {
	switch u {
	case Cores:
		return fmt.Sprintf("%.2f %%", v*100)
	case Bytes:
		return fmt.Sprintf("%.1f MB", v/1e6)
	case Seconds:
	}
	if v < 1 {
		return fmt.Sprintf("%.3g ms", v*1e3)
	}
	return fmt.Sprintf("%.3g s", v)
}
