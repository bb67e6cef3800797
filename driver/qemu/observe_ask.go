package qemu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
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
	drives  []blockDrive
	devices []qomItem
	jobs    []jobReply
	// chardevs are asked for only when the machine may have an agent's port.
	chardevs []chardev

	// all are the questions in the order in which they are asked and answered. The
	// uuid comes last, if it is asked for: when that is the answer to the last question,
	// no answer to another one was lost or too many.
	all []*qmp.Call
	// tuned are the drives of which something was or is wanted that query-block does not
	// tell. It cannot change while a device lives, so of no others it is asked.
	tuned map[string]tuned
	// state and who ask for status and uuid, block for the drives.
	state, who, block *qmp.Call
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
// Known is the uuid of whoever answers where that is proved already; a brief look does
// not ask for it then.
func newQuestions(depth driver.Depth, launched *driver.Launched, known string) *questions {
	q := &questions{depth: depth}
	q.state, q.who = qmp.NewCall("query-status", nil, &q.status), qmp.NewCall("query-uuid", nil, &q.uid)
	q.all = []*qmp.Call{q.state}
	if launched == nil || launched.Spec.GuestAgent != nil {
		q.all = append(q.all, qmp.NewCall("query-chardev", nil, &q.chardevs))
	}
	if depth == driver.DepthBrief {
		if q.uid.UUID = known; known == "" {
			q.all = append(q.all, q.who)
		}
		return q
	}
	q.block = qmp.NewCall("query-block", nil, &q.drives)
	q.all = append(q.all,
		q.block, qomList(peripherals, &q.devices), qmp.NewCall("query-jobs", nil, &q.jobs),
		qomList("/", &q.root), qmp.NewCall("query-memory-size-summary", nil, &q.memory), qmp.NewCall("query-kvm", nil, &q.kvm),
		q.cpus.call(), q.who,
	)
	return q
}

// askDrivesAgain asks for the drives once more, since something has changed, and lets
// that answer count in the place of the first one.
func (q *questions) askDrivesAgain(ctx context.Context, conn *qmp.Conn) error {
	var again []blockDrive
	if err := conn.Do(ctx, "query-block", nil, &again); err != nil {
		return err
	}
	q.all = slices.DeleteFunc(q.all, func(c *qmp.Call) bool { return c == q.block })
	q.drives = again
	return nil
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
	if q.status.Status == "" {
		return fmt.Errorf("%w: the first one holds no run state", errDisorder)
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
	g.NVRAM = nvram(q.drives)
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

// detail is what one device is asked further: a drive how it shows itself, and any
// other whether it is a card.
type detail struct {
	qomItem
	// drive is nil for what is no drive.
	drive *blockDrive
	// serial, writeCache and thread are of a drive.
	serial, writeCache, thread string
	// mac is of a card, and askMAC fails for what is none.
	mac    string
	askMAC *qmp.Call
}

// tuned tells which of a drive's properties are asked for.
type tuned struct{ serial, cache, thread bool }

// tune has the drives of specs asked for what these say of them.
func (q *questions) tune(specs ...*manifest.VirtualMachineSpec) {
	q.tuned = map[string]tuned{}
	for _, spec := range specs {
		for i := range spec.Disks {
			d, t := &spec.Disks[i], q.tuned[spec.Disks[i].Name]
			t.serial = t.serial || d.Serial != ""
			t.cache = t.cache || d.Cache != "" && d.Cache != manifest.CacheWriteback
			t.thread = t.thread || d.IOThread
			q.tuned[d.Name] = t
		}
	}
}

// ask are the questions about the device.
func (x *detail) ask(t tuned) (calls []*qmp.Call) {
	path := peripherals + "/" + x.Name
	if x.drive == nil {
		x.askMAC = qomGet(path, "mac", &x.mac)
		return []*qmp.Call{x.askMAC}
	}
	if t.serial {
		calls = append(calls, qomGet(path, "serial", &x.serial))
	}
	if t.cache {
		calls = append(calls, qomGet(path, "write-cache", &x.writeCache))
	}
	if t.thread {
		calls = append(calls, qomGet(path, "iothread", &x.thread))
	}
	return calls
}

// details asks what the devices are, in one write: those with a MAC are network cards.
func (q *questions) details(ctx context.Context, d *Driver, conn *qmp.Conn, g *driver.Guest) error {
	var calls []*qmp.Call
	var all []*detail
	if !slices.ContainsFunc(q.devices, func(i qomItem) bool { return i.Name == driver.AgentPort }) {
		g.Agent = nil // somebody has unplugged it
	}
	for _, item := range q.devices {
		kind, ok := item.kind()
		switch {
		case !ok:
		case item.Name == driver.WatchdogDevice:
			g.Watchdog = kind
		case item.Name == driver.TPMDevice:
			g.TPM = kind
		case strings.HasPrefix(item.Name, portPrefix):
			g.Ports++
		case item.Name == scsiController, item.Name == usbController:
			g.Controllers = append(g.Controllers, kind)
		}
		// Names with a dot are what maqet adds itself: no name of a manifest has one.
		if !ok || strings.Contains(item.Name, ".") {
			continue
		}
		x := &detail{qomItem: qomItem{item.Name, kind}, drive: driveOf(q.drives, item.Name)}
		calls = append(calls, x.ask(q.tuned[item.Name])...)
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
	sortDevices(all, g)
	return nil
}

// sortDevices puts each device where it belongs.
func sortDevices(all []*detail, g *driver.Guest) {
	g.Disks, g.NICs, g.Devices = []driver.GDisk{}, []driver.GNIC{}, []driver.GDevice{}
	for _, x := range all {
		switch {
		case x.drive != nil:
			g.Disks = append(g.Disks, x.disk())
		case x.askMAC.Err() == nil:
			g.NICs = append(g.NICs, driver.GNIC{Name: x.Name, Model: x.Type, MAC: strings.ToLower(x.mac)})
		case x.Type == driver.DeviceVirtioFS:
			g.Filesystems = append(g.Filesystems, driver.GFilesystem{Name: x.Name, Driver: string(manifest.FilesystemVirtioFS)})
		case x.Type == driver.Device9P:
			g.Filesystems = append(g.Filesystems, driver.GFilesystem{Name: x.Name, Driver: string(manifest.Filesystem9P)})
		default:
			g.Devices = append(g.Devices, driver.GDevice{Name: x.Name, Driver: x.Type})
		}
	}
	slices.SortFunc(g.Disks, func(a, b driver.GDisk) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(g.NICs, func(a, b driver.GNIC) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(g.Filesystems, func(a, b driver.GFilesystem) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(g.Devices, func(a, b driver.GDevice) int { return strings.Compare(a.Name, b.Name) })
}
