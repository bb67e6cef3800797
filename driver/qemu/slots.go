package qemu

import (
	"strings"

	"github.com/maqet/maqet/driver"
)

// BusFamilyOf says how a board connects devices, by its versioned name or its alias.
func BusFamilyOf(machineType string) driver.BusFamily {
	switch {
	case machineType == "q35", strings.HasPrefix(machineType, "pc-q35-"),
		machineType == "virt", strings.HasPrefix(machineType, "virt-"):
		return driver.FamilyPCIe
	case machineType == "pc", strings.HasPrefix(machineType, "pc-i440fx-"):
		return driver.FamilyPCI
	default:
		return driver.FamilyNone
	}
}
