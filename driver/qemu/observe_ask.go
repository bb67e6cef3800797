package qemu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
)

// questions are what QEMU is asked, all in one write together with the handshake,
// and where the answers go. QEMU reads its monitor a byte per turn of its main loop,
// which costs it more than the answers do, so of several ways to ask it is the
// shortest that is taken.
type questions struct {
	depth driver.Depth

	status struct {
		Status string `json:"status"`
	}
	uid uuidReply
	kvm struct {
		Enabled bool `json:"enabled"`
	}
	// root are the children of the root of all objects; one is the board.
	root   []qomItem
	memory struct {
		Base int64 `json:"base-memory"`
	}
	cpus    cpuQuestions
	drives  []drive
	devices []qomItem
	jobs    []jobReply
	// chardevs are asked for only when the machine may have an agent's port.
	chardevs []chardev

	// all are the questions in the order in which they are asked and answered. The
	// uuid comes last: when that is the answer to the last question, no answer to
	// another one was lost or too many.
	all []*qmp.Call
	// state and who ask for status and uuid.
	state, who *qmp.Call
}

// drive is a drive of a device, with the block node in it.
type drive struct {
	// Device is the name of the device, or the path of the part of it that has the drive.
	Device string `json:"qdev"`
	// Inserted is nil without a medium.
	Inserted *struct {
		Driver   string `json:"drv"`
		ReadOnly bool   `json:"ro"`
		File     string `json:"file"`
		Image    struct {
			Size      int64 `json:"virtual-size"`
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
	} `json:"inserted"`
}

// qomItem is a child of an object.
type qomItem struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// kind is the type of the child; false for a property that is none.
func (i qomItem) kind() (string, bool) {
	kind, ok := strings.CutPrefix(i.Type, "child<")
	return strings.TrimSuffix(kind, ">"), ok
}

type jobReply struct {
	ID     string `json:"id"`
	Type   string `json:"type"`
	Status string `json:"status"`
	Error  string `json:"error"`

	Current int64 `json:"current-progress"`
	Total   int64 `json:"total-progress"`
}

// peripherals is where QEMU has the devices that were given a name.
const peripherals = "/machine/peripheral"

// newQuestions are the questions of a depth about a process with that launch record.
func newQuestions(depth driver.Depth, launched *driver.Launched) *questions {
	q := &questions{depth: depth}
	q.state, q.who = qmp.NewCall("query-status", nil, &q.status), qmp.NewCall("query-uuid", nil, &q.uid)
	q.all = []*qmp.Call{q.state}
	if launched == nil || launched.Spec.GuestAgent != nil {
		q.all = append(q.all, qmp.NewCall("query-chardev", nil, &q.chardevs))
	}
	if depth == driver.DepthBrief {
		q.all = append(q.all, q.who)
		return q
	}
	q.all = append(q.all,
		qmp.NewCall("query-block", nil, &q.drives), qomList(peripherals, &q.devices), qmp.NewCall("query-jobs", nil, &q.jobs),
		qomList("/", &q.root), qmp.NewCall("query-memory-size-summary", nil, &q.memory), qmp.NewCall("query-kvm", nil, &q.kvm),
		q.cpus.call(), q.who,
	)
	return q
}

func qomGet(path, property string, result any) *qmp.Call {
	return qmp.NewCall("qom-get", map[string]any{"path": path, "property": property}, result)
}

func qomList(path string, result any) *qmp.Call {
	return qmp.NewCall("qom-list", map[string]any{"path": path}, result)
}

// errDisorder is wrapped when the answers do not fit the questions.
var errDisorder = errors.New("QEMU's answers do not fit the questions")

// settle waits for the answers. Only the places for CPUs may be refused.
func (q *questions) settle(ctx context.Context, d *Driver) error {
	for _, call := range q.all {
		wait := d.wait
		if call == q.cpus.listed {
			wait = func(ctx context.Context, calls ...*qmp.Call) error { return d.waitTried(ctx, calls) }
		}
		if err := wait(ctx, call); err != nil {
			return err
		}
	}
	if q.uid.UUID == "" {
		return fmt.Errorf("%w: the last one holds no uuid", errDisorder)
	}
	return nil
}

// answers waits for the answers, asks what follows from them in further writes, and
// says what the guest is.
func (q *questions) answers(ctx context.Context, d *Driver, conn *qmp.Conn) (*driver.Guest, error) {
	if err := q.settle(ctx, d); err != nil {
		return nil, err
	}
	g := &driver.Guest{RunState: q.status.Status, UID: q.uid.UUID, Version: greetingVersion(conn), Brief: q.depth == driver.DepthBrief}
	g.Agent = agentPort(q.chardevs)
	if g.Brief {
		return g, nil
	}
	for _, item := range q.root {
		if kind, ok := item.kind(); ok && item.Name == "machine" {
			g.MachineType = strings.TrimSuffix(kind, "-machine")
		}
	}
	g.Accelerator = "tcg"
	if q.kvm.Enabled {
		g.Accelerator = "kvm"
	}
	g.Memory = q.memory.Base
	for _, j := range q.jobs {
		g.Jobs = append(g.Jobs, driver.Job(j))
	}
	if err := q.cpus.answers(ctx, d, conn, g); err != nil {
		return nil, err
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

// details asks what the devices are that have no drive, in one write: those with a
// MAC are network cards.
func (q *questions) details(ctx context.Context, d *Driver, conn *qmp.Conn, g *driver.Guest) error {
	g.Disks, g.NICs, g.Devices = []driver.GDisk{}, []driver.GNIC{}, []driver.GDevice{}
	var calls []*qmp.Call
	var asked []driver.GNIC
	if !slices.ContainsFunc(q.devices, func(i qomItem) bool { return i.Name == driver.AgentPort }) {
		g.Agent = nil // somebody has unplugged it
	}
	for _, item := range q.devices {
		kind, ok := item.kind()
		// Names with a dot are what maqet adds itself: no name of a manifest has one.
		if !ok || strings.Contains(item.Name, ".") {
			continue
		}
		if drive := q.drive(item.Name); drive != nil {
			g.Disks = append(g.Disks, drive.disk(item.Name, kind))
			continue
		}
		asked = append(asked, driver.GNIC{Name: item.Name, Model: kind})
	}
	for i := range asked {
		calls = append(calls, qomGet(peripherals+"/"+asked[i].Name, "mac", &asked[i].MAC))
	}
	if len(calls) > 0 {
		if err := conn.Send(ctx, calls...); err != nil {
			return err
		}
		if err := d.waitTried(ctx, calls); err != nil {
			return err
		}
	}
	for i, nic := range asked {
		if calls[i].Err() != nil {
			g.Devices = append(g.Devices, driver.GDevice{Name: nic.Name, Driver: nic.Model})
			continue
		}
		nic.MAC = strings.ToLower(nic.MAC)
		g.NICs = append(g.NICs, nic)
	}
	slices.SortFunc(g.Disks, func(a, b driver.GDisk) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(g.NICs, func(a, b driver.GNIC) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(g.Devices, func(a, b driver.GDevice) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// drive is the drive of a device that has a medium in it; nil when there is none. A
// virtio device has it in a part without a name. Where another device does, such as
// a USB stick, the part is a device of its own, which no manifest has.
func (q *questions) drive(device string) *drive {
	for i := range q.drives {
		d := &q.drives[i]
		if d.Inserted != nil && (d.Device == device || d.Device == peripherals+"/"+device+"/virtio-backend") {
			return d
		}
	}
	return nil
}

// disk is the drive as that of a device.
func (d *drive) disk(name, kind string) driver.GDisk {
	in := d.Inserted
	disk := driver.GDisk{Name: name, Driver: kind, File: in.File, Format: in.Driver, ReadOnly: in.ReadOnly, Size: in.Image.Size}
	for _, s := range in.Image.Snapshots {
		disk.Snapshots = append(disk.Snapshots, driver.ImageSnapshot{
			Tag: s.Name, VMStateSize: s.VMStateSize, Date: time.Unix(s.DateSec, s.DateNsec),
		})
	}
	for _, m := range in.Bitmaps {
		if m.Name != "" {
			disk.Bitmaps = append(disk.Bitmaps, m.Name)
		}
	}
	return disk
}
