package driver

// The ids of devices that maqet makes of keys of their own, which are the names of
// their slots in an identity, too. No name of a manifest has a dot.
const (
	// SeedDevice is the controller with the drive that holds the seed.
	SeedDevice = "maqet.seed"
	// WatchdogDevice is the watchdog.
	WatchdogDevice = "maqet.watchdog"
)
