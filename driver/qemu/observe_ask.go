package qemu

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
)

// questions are what QEMU is asked, all in one write together with the handshake,
// and where the answers go.
type questions struct {
	depth driver.Depth

	status struct {
		Status string `json:"status"`
	}
	uid uuidReply
	kvm struct {
		Enabled bool `json:"enabled"`
	}
	board string
	smp   struct {
		CPUs    int `json:"cpus"`
		Sockets int `json:"sockets"`
		Cores   int `json:"cores"`
		Threads int `json:"threads"`
	}
	memory struct {
		Size int64 `json:"size"`
	}
	cpus []struct {
		Path string `json:"qom-path"`
	}
	blocks []namedBlock
	// chardevs are asked for only when the machine may have an agent's port.
	chardevs []chardev
	devices  []qomItem
	jobs     []jobReply

	needed []*qmp.Call // must be answered
	tried  []*qmp.Call // may be refused: not every board has everything
}

// namedBlock is a block node as QEMU has it.
type namedBlock struct {
	Name     string `json:"node-name"`
	Driver   string `json:"drv"`
	ReadOnly bool   `json:"ro"`
	File     string `json:"file"`
	Image    struct {
		Size      int64  `json:"virtual-size"`
		Format    string `json:"format"`
		Snapshots []struct {
			Name        string `json:"name"`
			VMStateSize int64  `json:"vm-state-size"`
			DateSec     int64  `json:"date-sec"`
			DateNsec    int64  `json:"date-nsec"`
		} `json:"snapshots"`
	} `json:"image"`
	Bitmaps []struct {
		Name string `json:"name"`
	} `json:"dirty-bitmaps"`
}

// qomItem is a child of an object.
type qomItem struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

type jobReply struct {
	ID     string `json:"id"`
	Type   string `json:"type"`
	Status string `json:"status"`
	Error  string `json:"error"`
}

// newQuestions are the questions of a depth about a process with that launch record.
func newQuestions(depth driver.Depth, launched *driver.Launched) *questions {
	q := &questions{depth: depth}
	q.needed = []*qmp.Call{qmp.NewCall("query-status", nil, &q.status), qmp.NewCall("query-uuid", nil, &q.uid)}
	if launched == nil || launched.Spec.GuestAgent != nil {
		q.needed = append(q.needed, qmp.NewCall("query-chardev", nil, &q.chardevs))
	}
	if depth == driver.DepthBrief {
		return q
	}
	q.needed = append(q.needed,
		qmp.NewCall("query-named-block-nodes", map[string]any{"flat": true}, &q.blocks),
		qmp.NewCall("qom-list", map[string]any{"path": "/machine/peripheral"}, &q.devices),
		qmp.NewCall("query-jobs", nil, &q.jobs),
		qomGet("/machine", "type", &q.board),
		qmp.NewCall("query-cpus-fast", nil, &q.cpus),
	)
	q.tried = []*qmp.Call{
		qmp.NewCall("query-kvm", nil, &q.kvm), qomGet("/machine", "smp", &q.smp), qomGet("/machine", "memory", &q.memory),
	}
	return q
}

func qomGet(path, property string, result any) *qmp.Call {
	return qmp.NewCall("qom-get", map[string]any{"path": path, "property": property}, result)
}

func (q *questions) calls() []*qmp.Call { return slices.Concat(q.needed, q.tried) }

// answers waits for the answers, asks what follows from them in a second write, and
// says what the guest is.
func (q *questions) answers(ctx context.Context, d *Driver, conn *qmp.Conn) (*driver.Guest, error) {
	if err := d.wait(ctx, q.needed...); err != nil {
		return nil, err
	}
	if err := d.waitTried(ctx, q.tried); err != nil {
		return nil, err
	}
	g := &driver.Guest{RunState: q.status.Status, UID: q.uid.UUID, Version: greetingVersion(conn), Brief: q.depth == driver.DepthBrief}
	g.Agent = agentPort(q.chardevs)
	if g.Brief {
		return g, nil
	}
	g.MachineType = strings.TrimSuffix(q.board, "-machine")
	g.Accelerator = "tcg"
	if q.kvm.Enabled {
		g.Accelerator = "kvm"
	}
	g.CPUs = cmp.Or(len(q.cpus), q.smp.CPUs)
	g.Topology = driver.Topology{Sockets: q.smp.Sockets, Cores: q.smp.Cores, Threads: q.smp.Threads}
	g.Memory = q.memory.Size
	for _, j := range q.jobs {
		g.Jobs = append(g.Jobs, driver.Job(j))
	}
	return g, q.details(ctx, d, conn, g)
}

// greetingVersion is the version that QEMU greeted with.
func greetingVersion(conn *qmp.Conn) driver.Version {
	v := conn.Greeting()
	return driver.Version{Major: v.Major, Minor: v.Minor, Micro: v.Micro}
}

// waitTried waits for answers of which each may be a refusal.
func (d *Driver) waitTried(ctx context.Context, calls []*qmp.Call) error {
	for _, call := range calls {
		var refused *qmp.Error
		if err := d.wait(ctx, call); err != nil && !errors.As(err, &refused) {
			return err
		}
	}
	return nil
}

// detail is what one device is asked: whether it is a drive, and whether a card.
type detail struct {
	qomItem
	drive, mac       string
	askDrive, askMAC *qmp.Call
}

// details asks for the CPU model and what each device is, in one write.
func (q *questions) details(ctx context.Context, d *Driver, conn *qmp.Conn, g *driver.Guest) error {
	var calls []*qmp.Call
	if len(q.cpus) > 0 {
		calls = append(calls, qomGet(q.cpus[0].Path, "type", &g.CPUModel))
	}
	var all []*detail
	if !slices.ContainsFunc(q.devices, func(i qomItem) bool { return i.Name == driver.AgentPort }) {
		g.Agent = nil // somebody has unplugged it
	}
	for _, item := range q.devices {
		kind, ok := strings.CutPrefix(item.Type, "child<")
		// Names with a dot are what maqet adds itself: no name of a manifest has one.
		if !ok || strings.Contains(item.Name, ".") {
			continue
		}
		x := &detail{qomItem: qomItem{item.Name, strings.TrimSuffix(kind, ">")}}
		path := "/machine/peripheral/" + item.Name
		x.askDrive, x.askMAC = qomGet(path, "drive", &x.drive), qomGet(path, "mac", &x.mac)
		calls = append(calls, x.askDrive, x.askMAC)
		all = append(all, x)
	}
	if len(calls) > 0 {
		if err := conn.Send(ctx, calls...); err != nil {
			return err
		}
		if err := d.waitTried(ctx, calls); err != nil {
			return err
		}
	}
	q.sort(all, g)
	return nil
}

// sort puts each device where it belongs.
func (q *questions) sort(all []*detail, g *driver.Guest) {
	g.Disks, g.NICs, g.Devices = []driver.GDisk{}, []driver.GNIC{}, []driver.GDevice{}
	for _, x := range all {
		switch {
		case x.askDrive.Err() == nil && x.drive != "":
			g.Disks = append(g.Disks, q.disk(x))
		case x.askMAC.Err() == nil:
			g.NICs = append(g.NICs, driver.GNIC{Name: x.Name, Model: x.Type, MAC: strings.ToLower(x.mac)})
		default:
			g.Devices = append(g.Devices, driver.GDevice{Name: x.Name, Driver: x.Type})
		}
	}
	slices.SortFunc(g.Disks, func(a, b driver.GDisk) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(g.NICs, func(a, b driver.GNIC) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(g.Devices, func(a, b driver.GDevice) int { return strings.Compare(a.Name, b.Name) })
}

// disk is a drive with what its block node says.
func (q *questions) disk(x *detail) driver.GDisk {
	disk := driver.GDisk{Name: x.Name, Driver: x.Type}
	i := slices.IndexFunc(q.blocks, func(b namedBlock) bool { return b.Name == x.drive })
	if i < 0 {
		return disk
	}
	b := &q.blocks[i]
	disk.File, disk.Format, disk.ReadOnly, disk.Size = b.File, b.Driver, b.ReadOnly, b.Image.Size
	for _, s := range b.Image.Snapshots {
		disk.Snapshots = append(disk.Snapshots, driver.ImageSnapshot{
			Tag: s.Name, VMStateSize: s.VMStateSize, Date: time.Unix(s.DateSec, s.DateNsec),
		})
	}
	for _, m := range b.Bitmaps {
		if m.Name != "" {
			disk.Bitmaps = append(disk.Bitmaps, m.Name)
		}
	}
	return disk
}
