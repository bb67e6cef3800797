// Package folder watches the files and folders manifests come from, and tells
// that what they say may have changed.
//
// # Basics
//
// New takes the paths as a person gave them; Run does the work until its context
// ends; Changes delivers a hint whenever another look is worthwhile, and the
// first one as soon as the watches are in place. A hint carries nothing: whoever
// receives it lists anew, by manifest.Load. Hints are collected over a short
// quiet time, at most over a bounded time, and never pile up. After the last
// change there always comes a hint.
//
// # What is watched
//
// manifest.Look says which files, folders and links decide; this package walks
// the way to each of them name by name, through every symbolic link, and watches
// each folder on the way. So it sees not only a file that is written or renamed
// into place but also the swap of a link (git-sync, Kubernetes' ..data), a folder
// far above that is replaced, and the creation of one that is missing yet.
// Watches are set first and the listing is made after; it is repeated until it
// needs no further watch.
//
// The kernel tells nothing when something is mounted over a watched folder, and
// fsnotify passes on nothing when it is unmounted; so the table of mounts is
// watched too. Beyond that the same listing is made from time to time, its
// fingerprint compared with the last, as a safety net. Where inotify is not to be
// had, because a limit of the kernel is reached, that listing is made every few
// seconds; Status and the log say so, and inotify is tried again. The same goes
// for folders that inotify cannot oversee: on network filesystems, or unreadable.
//
// # Caveats
//
// A hint is no promise of a change, and the absence of a folder proves nothing:
// the receiver decides what it means. What manifests refer to, such as a file of
// user data, is not watched. fsnotify cannot ask the kernel for names only, so
// every write to a file beside a folder on the way wakes the Watcher, which then
// does no more than a look into a map. A filesystem that hangs, as NFS can, holds
// up Run, even beyond the end of its context.
package folder
