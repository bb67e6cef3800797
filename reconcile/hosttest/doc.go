// Package hosttest is one script for every host that machines may run on: the
// simulated one, on which the controller is tested, and the real one, which is
// the driver with QEMU. It does to a machine what the reconciler, people, guests
// and kernels do, and says after each act what is to be seen. A host that shows
// anything else is not the host that the other tests believe in.
//
// Basics: a host implements [Host], a test calls [Run] with it. The script itself
// is a table, in script.go.
//
// Caveats: what takes time is waited for, so the script says what comes of an act
// and not how soon. That nothing comes of one can only be seen for a while.
package hosttest
