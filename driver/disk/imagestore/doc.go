// Package imagestore fetches the disk images that Image objects name, verifies
// and checks them, and keeps each once, under its digest.
//
// # Basics
//
//	store := imagestore.New(imagestore.Config{Layout: where, Timing: timing.Default(), Locks: locks, Images: images})
//	state := store.Look(spec)                     // quick: is it there?
//	state, err := store.Pull(ctx, spec, progress) // long: makes it so
//
// # Promises
//
//   - Nothing lies under an image's final name but the whole image: its digest was
//     compared, it was unpacked, found to be complete and of the format that its
//     object says, and it is on stable storage.
//   - A fetch that was cut off, by the network, Ctrl-C or kill -9, goes on where it
//     ended. What was there before is read again, so that the digest is of all of it.
//   - Of many that want one image, in this process or others, one fetches it. The
//     others wait, see how far it is, and give up when it gets on no more.
//   - A server is held to what it announced: one that stalls, sends too much, or
//     fills the filesystem is left, and the error says so in words.
//   - An image that something backs onto is never removed, and neither is one of
//     which that could not be found out.
//
// # The digest
//
// It is that of the file as its publisher has it, before unpacking, so that it can
// be copied from lists such as SHA256SUMS. A file of this host may go without one:
// then it counts as it was when it was taken, and a later change of it is noticed
// and taken only by another Pull.
//
// # Caveats
//
// The content of an image is not compared with its digest again once it is stored:
// whoever may write to the state dir is trusted. The fetch of an image without a
// digest takes its file as it is at that moment; a file that is written to
// meanwhile is refused.
package imagestore
