// Package qemurun starts a bare QEMU for a test: no maqet involved, so that it can
// judge the tiny guest, serve as the yardstick of benchmarks, and play the part of
// somebody else's QEMU.
//
//	m := qemurun.Start(t, "-machine", "q35", "-m", "128", "-kernel", g.Kernel, ...)
//	m.WaitSerial("maqet-guest ready", 30*time.Second)
//	m.Execute("system_powerdown", nil)
//	m.WaitExit(10 * time.Second)
//
// The first serial port is read and written by the test, QMP is connected before
// QEMU runs, and QEMU is killed and waited for when the test ends. Every failure
// ends the test and shows what QEMU and the guest said last.
package qemurun
