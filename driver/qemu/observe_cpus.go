package qemu

import (
	"context"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
)

// cpuQuestions are what QEMU is asked about its vCPUs. Boards whose CPUs can be
// plugged list all places for them, which tells everything at once. Others are asked
// more, in two further writes.
type cpuQuestions struct {
	places []cpuPlace
	listed *qmp.Call
}

// cpuPlace is a place for vCPUs.
type cpuPlace struct {
	Type  string `json:"type"`
	VCPUs int    `json:"vcpus-count"`
	// Path is that of the CPU; empty while the place is free.
	Path  string `json:"qom-path"`
	Props struct {
		Socket *int `json:"socket-id"`
		Core   *int `json:"core-id"`
		Thread *int `json:"thread-id"`
	} `json:"props"`
}

// call asks for the places. Boards that have none refuse it.
func (c *cpuQuestions) call() *qmp.Call {
	c.listed = qmp.NewCall("query-hotpluggable-cpus", nil, &c.places)
	return c.listed
}

// answers fills in what the guest's vCPUs are.
func (c *cpuQuestions) answers(ctx context.Context, d *Driver, conn *qmp.Conn, g *driver.Guest) error {
	topology, ok := topologyOf(c.places)
	if c.listed.Err() != nil || !ok {
		return askCPUs(ctx, d, conn, g)
	}
	g.Topology = topology
	for _, place := range c.places {
		if place.Path != "" {
			g.CPUs += place.VCPUs
			if strings.HasPrefix(place.Path, peripherals+"/") {
				g.AddedCPUs += place.VCPUs
			}
			g.CPUModel = place.Type
		}
	}
	return nil
}

// topologyOf is how places for one vCPU each are arranged; false when they are not
// numbered by socket, core and thread.
func topologyOf(places []cpuPlace) (t driver.Topology, ok bool) {
	sockets, cores, threads := map[int]bool{}, map[int]bool{}, map[int]bool{}
	for _, place := range places {
		p := place.Props
		if place.VCPUs != 1 || p.Socket == nil || p.Core == nil || p.Thread == nil {
			return t, false
		}
		sockets[*p.Socket], cores[*p.Core], threads[*p.Thread] = true, true, true
	}
	return driver.Topology{Sockets: len(sockets), Cores: len(cores), Threads: len(threads)}, len(places) > 0
}

// askCPUs asks a board that does not list its places.
func askCPUs(ctx context.Context, d *Driver, conn *qmp.Conn, g *driver.Guest) error {
	var cpus []struct {
		Path string `json:"qom-path"`
	}
	var smp struct {
		CPUs    int `json:"cpus"`
		Sockets int `json:"sockets"`
		Cores   int `json:"cores"`
		Threads int `json:"threads"`
	}
	list, arranged := qmp.NewCall("query-cpus-fast", nil, &cpus), qomGet("/machine", "smp", &smp)
	if err := conn.Send(ctx, list, arranged); err != nil {
		return err
	}
	if err := d.wait(ctx, list); err != nil {
		return err
	}
	if err := d.waitTried(ctx, []*qmp.Call{arranged}); err != nil {
		return err
	}
	g.Topology = driver.Topology{Sockets: smp.Sockets, Cores: smp.Cores, Threads: smp.Threads}
	if g.CPUs = len(cpus); g.CPUs == 0 {
		g.CPUs = smp.CPUs
		return nil
	}
	model := qomGet(cpus[0].Path, "type", &g.CPUModel)
	if err := conn.Send(ctx, model); err != nil {
		return err
	}
	return d.waitTried(ctx, []*qmp.Call{model})
}
