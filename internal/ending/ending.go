// Package ending names the ways in which a machine's process ends. The room
// that sees an end and the room that remembers it do not know each other, and
// share these words.
package ending

// Cause is why a QEMU process ended.
type Cause string

// The causes.
const (
	// Stopped is an end that maqet asked for.
	Stopped Cause = "Stopped"
	// Guest is a guest that powered itself off.
	Guest Cause = "GuestPowerOff"
	// Signal is a QEMU that was asked politely to end by a signal.
	Signal Cause = "Signal"
	// Crash is a QEMU that left its pid file and sockets behind.
	Crash Cause = "Crash"
	// HostReboot is a host that was restarted under the guest.
	HostReboot Cause = "HostReboot"
	// StartFailed is a QEMU that never answered query-status.
	StartFailed Cause = "StartFailed"
	// Panic is a guest whose kernel panicked, upon which QEMU ended. Only who
	// listened to QEMU knows it from a power-off.
	Panic Cause = "GuestPanicked"
	// Watchdog is a guest that its virtual watchdog ended. Only who listened
	// to QEMU knows it from a power-off.
	Watchdog Cause = "Watchdog"
	// Quit is a QEMU that somebody else than maqet told to quit in a monitor.
	// Only who listened to QEMU knows it from a power-off.
	Quit Cause = "MonitorQuit"
)
