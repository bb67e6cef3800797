// Package machinemodel holds real QEMU, by the driver, to the script that the
// simulated host of the controller's tests is held to as well (reconcile/hosttest).
//
// It is a package of its own, since the driver sets the umask of the process that
// it starts QEMU from: other tests would make their files with it.
package machinemodel
