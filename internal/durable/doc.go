// Package durable replaces whole files, so that a reader at any moment, and
// after any crash, finds either the old content or the new one.
//
// WriteFile is for what must survive the host: it returns when content and
// name are on the disk. WriteVolatile is for the run dir, which dies with the
// boot: it is as atomic, and does not wait for the disk. When writing fails,
// for lack of space above all, the old file stays as it was.
//
// # Caveats
//
// A process killed in the middle leaves its temporary file behind, next to the
// file, under a name that begins with a dot and ends in ".tmp". Whoever lists
// such a folder skips hidden names. A file that is a symlink is replaced itself;
// what it points at is left alone.
package durable
