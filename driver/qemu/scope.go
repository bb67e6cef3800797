package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// Bus is the message bus on which the systemd is reached that gives each QEMU a scope
// of its own. The zero value is none: then QEMU stays in the control group of whoever
// started it, and ends with it where that is a unit or a login session.
type Bus struct {
	// Address is in D-Bus' own notation, such as unix:path=/run/dbus/system_bus_socket.
	Address string
	// User tells that it is a user's own systemd instead of the host's.
	User bool
}

// FindBus is the bus of the systemd that runs this host, or for an ordinary user that
// user's. It is none where systemd did not boot the host or no socket is there, as in
// most containers. Nothing is connected to yet.
func FindBus(getenv func(string) string, root bool) Bus {
	return findBus(getenv, root, "/")
}

// findBus is FindBus with the root folder of the host.
func findBus(getenv func(string) string, root bool, host string) Bus {
	if info, err := os.Stat(filepath.Join(host, "run/systemd/system")); err != nil || !info.IsDir() {
		return Bus{}
	}
	socket := filepath.Join(host, "run/dbus/system_bus_socket")
	if !root {
		dir := getenv("XDG_RUNTIME_DIR")
		if !filepath.IsAbs(dir) {
			return Bus{}
		}
		socket = filepath.Join(dir, "bus")
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Type() != fs.ModeSocket {
		return Bus{}
	}
	return Bus{Address: busAddress(socket), User: !root}
}

// busAddress is a socket's path in D-Bus' notation, which escapes what else would end it.
func busAddress(socket string) string { return "unix:path=" + dbus.EscapeBusAddressValue(socket) }

// guestsUnit is the unit that ends guests gracefully when the host goes down. Scopes
// must outlive its end, or systemd would end QEMU beneath guests that still shut down.
const guestsUnit = "maqet-guests-shutdown.service"

// scopeUnit is the name of a machine's scope.
func scopeUnit(name string) string { return "maqet-" + name + ".scope" }

// scoping is a QEMU on its way into a scope.
type scoping struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// beginScope has systemd put a new QEMU, and what was started for it, into a scope of
// its own, while QEMU gets ready.
func (d *Driver) beginScope(ctx context.Context, name string, pids ...int) *scoping {
	s := &scoping{cancel: func() {}, done: make(chan struct{})}
	if d.bus.Address == "" {
		close(s.done)
		return s
	}
	ctx, s.cancel = context.WithTimeout(ctx, d.timing.Bus)
	go func() {
		defer close(s.done)
		defer s.cancel()
		unit, err := d.bus.scope(ctx, name, pids...)
		switch {
		case errors.Is(ctx.Err(), context.Canceled):
			// The start was given up.
		case err != nil:
			d.log.WarnContext(ctx, "systemd gave the machine no scope; it ends with the unit or session that maqet runs in",
				"vm", name, "pids", pids, "err", err)
		default:
			d.log.DebugContext(ctx, "machine has its own scope", "vm", name, "unit", unit)
		}
	}()
	return s
}

// end waits until the QEMU is in its scope, or will be in none.
func (s *scoping) end() { <-s.done }

// abandon is end without waiting for systemd.
func (s *scoping) abandon() {
	s.cancel()
	<-s.done
}

// scope puts processes into a scope, and returns the unit's name once they are in it.
// The first one's id tells the scope from another of its name.
func (b Bus) scope(ctx context.Context, name string, pids ...int) (string, error) {
	conn, err := systemd.NewConnection(func() (*dbus.Conn, error) { return b.dial(ctx) })
	if err != nil {
		return "", fmt.Errorf("connect to systemd: %w", err)
	}
	defer conn.Close()
	unit := scopeUnit(name)
	err = b.start(ctx, conn, unit, name, pids)
	if isUnitExists(err) {
		// The last process's scope is not cleared away yet, or another state dir has a
		// machine of that name.
		unit = strings.TrimSuffix(unit, ".scope") + fmt.Sprintf("-%d.scope", pids[0])
		err = b.start(ctx, conn, unit, name, pids)
	}
	return unit, err
}

// dial connects to the bus; the connection ends with ctx.
func (b Bus) dial(ctx context.Context) (*dbus.Conn, error) {
	conn, err := dbus.Dial(b.Address, dbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if err = conn.Auth(nil); err == nil {
		err = conn.Hello()
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// start makes the scope and waits for systemd's job.
func (b Bus) start(ctx context.Context, conn *systemd.Conn, unit, name string, pids []int) error {
	all := make([]uint32, len(pids))
	for i, pid := range pids {
		all[i] = uint32(pid) //nolint:gosec // a pid is positive
	}
	slice := "machine.slice"
	if b.User {
		slice = "app.slice"
	}
	properties := []systemd.Property{
		systemd.PropDescription("Virtual machine " + name + " of maqet"),
		systemd.PropSlice(slice),
		systemd.PropPids(all...),
		systemd.PropBefore(guestsUnit),
		// A scope that ended badly is to leave nothing behind in systemd.
		{Name: "CollectMode", Value: dbus.MakeVariant("inactive-or-failed")},
	}
	result := make(chan string, 1)
	if _, err := conn.StartTransientUnitContext(ctx, unit, "fail", properties, result); err != nil {
		return fmt.Errorf("start %s: %w", unit, err)
	}
	select {
	case word := <-result:
		if word != "done" {
			return fmt.Errorf("start %s: systemd's job ended as %q", unit, word)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("start %s: systemd does not tell the end of its job: %w", unit, ctx.Err())
	}
}

// isUnitExists tells that systemd has a unit of that name already.
func isUnitExists(err error) bool {
	var refused dbus.Error
	return errors.As(err, &refused) && refused.Name == "org.freedesktop.systemd1.UnitExists"
}

// cgroup is the control group a process is in; empty when it cannot be told.
func (p procfs) cgroup(pid int) string {
	text, err := os.ReadFile(p.path(pid, "cgroup"))
	if err != nil {
		return ""
	}
	unified := ""
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		switch {
		case fields[1] == "name=systemd":
			// Hosts with the older hierarchies keep what systemd says in this one.
			return fields[2]
		case fields[0] == "0":
			unified = fields[2]
		}
	}
	return unified
}
