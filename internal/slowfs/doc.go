// Package slowfs asks the host's file systems with a deadline.
//
//	files := slowfs.New(5 * time.Second)
//	info, err := files.Stat(ctx, "/mnt/nfs/image.raw")
//	if errors.Is(err, slowfs.ErrHung) { // nobody answered
//
// A system call on a network file system whose server is gone does not return, and
// cannot be cancelled. So it is made by a goroutine of its own, which its caller leaves
// behind at the deadline. Such a goroutine holds a thread of the system until the server
// is back: that they do not pile up, nobody asks for a path again while a question
// about it that was left behind is still under way.
package slowfs
