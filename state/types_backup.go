package state

import (
	"time"

	"github.com/maqet/maqet/manifest"
)

// Backup is what is remembered of a machine's backups. What there is of them is always
// asked of the folder, never read here.
type Backup struct {
	// Target is the folder that Marker is the mark of: another folder in its place, such
	// as the empty one below a mount that is gone, is not filled.
	Target string `json:"target"`
	Marker string `json:"marker"`
	// Scheduled is the time that the schedule named for the last backup that was made.
	Scheduled time.Time `json:"scheduled,omitzero"`
	// Run is the last one: its name, its type, the moment that it is of, and its size.
	Run   string              `json:"run,omitempty"`
	Type  manifest.BackupMode `json:"type,omitempty"`
	At    time.Time           `json:"at,omitzero"`
	Bytes int64               `json:"bytes,omitempty"`
	// Failed is why the last scheduled one was not made; empty when it was. Failures
	// counts the tries in a row, and NotBefore is when the next one begins.
	Failed    string    `json:"failed,omitempty"`
	FailedAt  time.Time `json:"failedAt,omitzero"`
	Failures  int       `json:"failures,omitempty"`
	NotBefore time.Time `json:"notBefore,omitzero"`
}
