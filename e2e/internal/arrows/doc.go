// Package arrows says which room of this repository may import which, and its test
// holds the whole tree against that, test files included:
//
//	cmd -> reconcile -> {driver, state} -> manifest
//	driver/qemu -> {driver/qmp, driver/disk}
//
// state and driver do not know each other, reconcile knows only the types of
// driver, the internal packages are leaves that every room may use, and what is
// under e2e is for e2e alone. Adding an arrow means changing the table here, in
// sight of whoever reviews it. The linter's configuration repeats the table for
// editors.
package arrows
