package hosttest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// Seen is what an observation shows, in words: all that plans and phases go by
// beside the guest's devices. Which words there are is in [words].
func Seen(o driver.Observed) string { return strings.Join(words(o), " ") }

// words are:
//
//	Alive running, Absent, ...  presence, and the run state or the reason
//	-S                          it was started paused and never continued
//	ready                       the readiness probe has succeeded
//	intent:Stop                 something was begun that is not over
//	job:concluded               a job that nobody has dismissed
//	ended:Crash                 why the last process ended, until that is cleared
//	launched                    the record of a process that is gone
//	snapshot:a, snapshot:a+mem  a snapshot, and one with memory
//	size:8Mi                    what its own disk has, when it was grown
//	limit:50                    operations a second that its own disk is limited to
//	unidentified, diskless      without an identity, without its own disk
func words(o driver.Observed) []string {
	seen := []string{string(o.Presence)}
	if o.Reason != "" {
		seen = append(seen, o.Reason)
	}
	note := func(is bool, word string) {
		if is {
			seen = append(seen, word)
		}
	}
	if o.Guest != nil {
		seen = append(seen, o.Guest.RunState)
		note(o.Guest.RunState == "prelaunch" && o.Launched != nil && slices.Contains(o.Launched.Argv, "-S"), "-S")
	}
	note(o.Ready, "ready")
	if o.Intent != nil {
		seen = append(seen, "intent:"+string(o.Intent.Kind))
	}
	if o.Guest != nil {
		for _, j := range o.Guest.Jobs {
			seen = append(seen, "job:"+j.Status)
		}
	}
	if o.Ended != nil {
		seen = append(seen, "ended:"+string(o.Ended.Cause))
	}
	note(o.Launched != nil && o.Presence == driver.Absent, "launched")
	for _, tag := range slices.Sorted(maps.Keys(o.Snapshots)) {
		word := "snapshot:" + tag
		if o.Snapshots[tag].VMStateSize > 0 {
			word += "+mem"
		}
		seen = append(seen, word)
	}
	if size := o.Files[ownDisk].Size; size != 0 {
		note(size != ownSize, "size:"+manifest.Quantity(size).String())
	}
	if o.Guest != nil {
		for _, d := range o.Guest.Disks {
			note(d.Name == ownDisk && d.IOPS != 0, fmt.Sprintf("limit:%d", d.IOPS))
		}
	}
	note(o.Identity == nil, "unidentified")
	note(o.Presence == driver.Absent && !o.Files[ownDisk].Exists, "diskless")
	return seen
}
