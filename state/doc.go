// Package state remembers what must be known when everything stops: which
// objects were applied by whom, holds, terminations, snapshots taken. Whether a
// machine runs is never among it: that is always asked.
//
//	store := state.New(state.Config{Path: l.Database(), LockPath: l.DatabaseLock()})
//	err := store.Update(ctx, func(tx *state.Tx) error {
//		web, err := tx.Machine("web") // nil when there is none
//		...
//		return tx.PutMachine(web)
//	})
//
// The database is one bbolt file, opened for one short moment. Updates of all
// processes queue at a lock file; those of one process that overlap share an
// opening. A View takes no lock in the ordinary case: it reads the whole file,
// and reads again if a commit fell into that.
//
// # Damage
//
// bbolt does not notice damaged values, and may panic or worse on damaged
// pages. So nothing of a file is believed before it was checked: the structure
// page by page, each record by its own checksum, and all records together by
// an inventory. A View of a damaged database gives what is sound and warns
// (Tx.Warnings). The first Update sets the damaged file aside as
// state.db.damaged-<time>, begins a new one with all sound records, and leaves
// a note in quarantine for each lost one, which warns until it is replaced. A
// record or database of a newer maqet is no damage: it is refused with
// ErrNewer and left as it is.
//
// # Journal
//
// What happened is no state: it is in a Journal beside the database, JSON lines
// that are appended, each with a checksum, in two files of bounded size. Losing
// an event changes nothing, so nobody waits for the disk, a line that cannot be
// written is given up, and a damaged one is left out of what is read.
//
// # Caveats
//
// The whole database is read each time, which is right for the records of one
// host (some microseconds per machine) and wrong for anything large. Update
// functions must be brief, since all other writers wait, and must not use the
// store themselves.
package state
