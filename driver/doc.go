// Package driver holds the words in which maqet speaks of what is true on this
// host: a machine's identity, its launch record, what was observed of it, and
// the errors of its life. The packages below it find these things out and
// change them: qmp talks to one QMP socket, qga to one guest agent, qemu starts,
// adopts, observes and changes QEMU processes, disk works on image files.
//
// The types here are plain data: anything may build them, which is how plans
// are tested without a host.
package driver
