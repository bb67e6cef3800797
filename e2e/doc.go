// Package e2e holds the tests of the built binary against real QEMU, as a user
// meets it, and of what users are given beside it: the examples.
//
// Shared fixtures are below e2e/internal: the tiny guest, a bare QEMU, and the
// table of arrows between the rooms.
package e2e
