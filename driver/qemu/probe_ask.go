package qemu

import (
	"context"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
)

// machineInfo is an element of query-machines.
type machineInfo struct {
	Name       string `json:"name"`
	Alias      string `json:"alias"`
	IsDefault  bool   `json:"is-default"`
	CPUMax     int    `json:"cpu-max"`
	DefaultCPU string `json:"default-cpu-type"`
}

// named is an element of every other list.
type named struct {
	Name string `json:"name"`
}

// listTypes are the arguments of qom-list-types.
type listTypes struct {
	Implements string `json:"implements"`
	Abstract   bool   `json:"abstract"`
}

// accelSuffix ends the type names of accelerators.
const accelSuffix = "-accel"

// ask lets a scratch process say what the binary can do.
func (p *Prober) ask(ctx context.Context, b binaryFile) (driver.Host, error) {
	var (
		target                    struct{ Arch string }
		machines                  []machineInfo
		cpus, pci, devices, accel []named
	)
	cpuCall := qmp.NewCall("query-cpu-definitions", nil, &cpus)
	calls := []*qmp.Call{
		qmp.NewCall("query-target", nil, &target),
		qmp.NewCall("query-machines", nil, &machines),
		qmp.NewCall("qom-list-types", listTypes{Implements: "device"}, &devices),
		qmp.NewCall("qom-list-types", listTypes{Implements: "pci-device"}, &pci),
		qmp.NewCall("qom-list-types", listTypes{Implements: "accel"}, &accel),
	}
	greeting, err := p.runScratch(ctx, b.path, nil, append(calls, cpuCall)...)
	if err != nil {
		return driver.Host{}, err
	}
	for _, call := range calls {
		if err := call.Err(); err != nil {
			return driver.Host{}, &BinaryError{Binary: b.path, Msg: "refused a question", Err: err, Hint: "maqet needs QEMU 7.2 or newer"}
		}
	}
	// Not every architecture's QEMU can list its CPU models; where it cannot, the
	// list is empty and models are not checked.
	if cpuCall.Err() != nil {
		cpus = nil
	}
	host := driver.Host{
		Binary:     b.path,
		Version:    driver.Version{Major: greeting.Major, Minor: greeting.Minor, Micro: greeting.Micro},
		Arch:       target.Arch,
		Machines:   map[string]driver.MachineType{},
		CPUModels:  namesOf(cpus),
		PCIDevices: setOf(pci),
		Devices:    setOf(devices),
	}
	for _, m := range machines {
		board := driver.MachineType{Name: m.Name, Alias: m.Alias, MaxCPU: m.CPUMax, DefaultCPU: m.DefaultCPU}
		addMachine(&host, board, m.IsDefault)
	}
	for _, a := range namesOf(accel) {
		// The base type is in the list as well, without the suffix.
		if name, ok := strings.CutSuffix(a, accelSuffix); ok {
			host.Accelerators = append(host.Accelerators, name)
		}
	}
	return host, nil
}

// addMachine makes a board findable by its name and by its alias.
func addMachine(host *driver.Host, board driver.MachineType, isDefault bool) {
	host.Machines[board.Name] = board
	if board.Alias != "" {
		host.Machines[board.Alias] = board
	}
	if isDefault {
		host.DefaultMachine = board.Name
	}
}

func namesOf(list []named) []string {
	names := make([]string, len(list))
	for i, n := range list {
		names[i] = n.Name
	}
	slices.Sort(names)
	return names
}

func setOf(list []named) map[string]bool {
	set := make(map[string]bool, len(list))
	for _, n := range list {
		set[n.Name] = true
	}
	return set
}
