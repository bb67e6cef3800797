package qemu

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>
`

// newBus starts a message bus of its own, and returns its address.
func newBus(t *testing.T) string {
	t.Helper()
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("dbus-daemon is not installed")
	}
	dir := shortDir(t)
	config := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, busConfig, filepath.Join(dir, "bus")), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(daemon, "--config-file="+config, "--nofork", "--nopidfile", "--print-address=1") //nolint:gosec // G204: found in PATH
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the bus does not tell its address: %v", err)
	}
	return strings.TrimSpace(address)
}

// fakeManager is systemd, as far as scopes go.
type fakeManager struct {
	conn *dbus.Conn
	// refuse is the error for a unit; result is what jobs end as, and empty for jobs
	// that do not end.
	refuse func(unit string) *dbus.Error
	result string

	mu    sync.Mutex
	units []fakeUnit
}

type fakeUnit struct {
	Name, Mode string
	Properties map[string]any
}

type busProperty struct {
	Name  string
	Value dbus.Variant
}

type busUnit struct {
	Name       string
	Properties []busProperty
}

// StartTransientUnit is the method of systemd's manager.
func (f *fakeManager) StartTransientUnit(name, mode string, properties []busProperty, _ []busUnit) (dbus.ObjectPath, *dbus.Error) {
	unit := fakeUnit{Name: name, Mode: mode, Properties: map[string]any{}}
	for _, p := range properties {
		unit.Properties[p.Name] = p.Value.Value()
	}
	f.mu.Lock()
	f.units = append(f.units, unit)
	id := uint32(len(f.units)) //nolint:gosec // few
	f.mu.Unlock()
	if f.refuse != nil {
		if err := f.refuse(name); err != nil {
			return "", err
		}
	}
	job := dbus.ObjectPath(fmt.Sprintf("/org/freedesktop/systemd1/job/%d", id))
	if f.result != "" {
		if err := f.conn.Emit("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager.JobRemoved", id, job, name, f.result); err != nil {
			return "", dbus.MakeFailedError(err)
		}
	}
	return job, nil
}

// asked are the units that were asked for.
func (f *fakeManager) asked() []fakeUnit {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.units
}

// serve puts the manager on a bus.
func (f *fakeManager) serve(t *testing.T, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	conn, err := dbus.Connect(address, dbus.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	f.conn = conn
	if err := conn.Export(f, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName("org.freedesktop.systemd1", dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
}

// logTo makes the rig's log readable.
func (r *rig) logTo() *lockedBuffer {
	b := new(lockedBuffer)
	r.log = slog.New(slog.NewTextHandler(b, nil))
	return b
}

// lockedBuffer is a buffer for several writers.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestStart_systemdAnswers_scopeHoldsTheProcess(t *testing.T) {
	for name, c := range map[string]struct {
		user  bool
		slice string
	}{"host": {false, "machine.slice"}, "user": {true, "app.slice"}} {
		t.Run(name, func(t *testing.T) {
			address := newBus(t)
			manager := &fakeManager{result: "done"}
			manager.serve(t, address)
			r := newRig(t)
			log := r.logTo()
			r.bus = Bus{Address: address, User: c.user}
			r.start(r.vm("web", bareBoard), false)
			want := []fakeUnit{{Name: "maqet-web.scope", Mode: "fail", Properties: map[string]any{
				"Description": "Virtual machine web of maqet", "Slice": c.slice, "CollectMode": "inactive-or-failed",
				"PIDs": []uint32{uint32(r.childOf("web").pid)}, "Before": []string{guestsUnit}, //nolint:gosec // a pid is positive
			}}}
			if diff := cmp.Diff(want, manager.asked()); diff != "" {
				t.Errorf("units (-want +got):\n%s", diff)
			}
			if strings.Contains(log.String(), "level=WARN") {
				t.Errorf("log: %s", log)
			}
		})
	}
}

func TestStart_machineWithTPM_scopeHoldsItsSWTPM(t *testing.T) {
	needSWTPM(t)
	address := newBus(t)
	manager := &fakeManager{result: "done"}
	manager.serve(t, address)
	r := newRig(t)
	r.bus = Bus{Address: address}
	r.start(r.vm("web", withTPM), true)
	want := []uint32{uint32(r.childOf("web").pid), uint32(r.awaitSWTPM(true))} //nolint:gosec // a pid is positive
	units := manager.asked()
	if len(units) != 1 {
		t.Fatalf("units are %+v", units)
	}
	if diff := cmp.Diff(want, units[0].Properties["PIDs"]); diff != "" {
		t.Errorf("processes of the scope (-want +got):\n%s", diff)
	}
}

// TestStart_machineWithVirtioFS_scopeHoldsAllItsVirtiofsd counts the child that virtiofsd
// makes itself, too.
func TestStart_machineWithVirtioFS_scopeHoldsAllItsVirtiofsd(t *testing.T) {
	needVirtiofsd(t)
	address := newBus(t)
	manager := &fakeManager{result: "done"}
	manager.serve(t, address)
	r := newRig(t)
	r.bus = Bus{Address: address}
	r.start(r.vm("web", r.shared(manifest.Filesystem{Name: "src"}, manifest.Filesystem{Name: "out"})), true)
	want := []uint32{uint32(r.childOf("web").pid)} //nolint:gosec // a pid is positive
	for _, name := range []string{"src", "out"} {
		for _, pid := range r.virtiofsds(name) {
			want = append(want, uint32(pid)) //nolint:gosec // as above
		}
	}
	units := manager.asked()
	if len(units) != 1 || len(want) < 3 {
		t.Fatalf("units are %+v, processes %v", units, want)
	}
	got, ok := units[0].Properties["PIDs"].([]uint32)
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" || !ok {
		t.Errorf("processes of the scope (-want +got):\n%s", diff)
	}
}

func TestStart_scopeNameTaken_anotherIsUsed(t *testing.T) {
	address := newBus(t)
	manager := &fakeManager{result: "done", refuse: func(unit string) *dbus.Error {
		if unit == "maqet-web.scope" {
			return dbus.NewError("org.freedesktop.systemd1.UnitExists", []any{"Unit maqet-web.scope already exists."})
		}
		return nil
	}}
	manager.serve(t, address)
	r := newRig(t)
	log := r.logTo()
	r.bus = Bus{Address: address}
	r.start(r.vm("web", bareBoard), false)
	units := manager.asked()
	if want := fmt.Sprintf("maqet-web-%d.scope", r.childOf("web").pid); len(units) != 2 || units[1].Name != want {
		t.Errorf("units %+v, want a second one %s", units, want)
	}
	if strings.Contains(log.String(), "level=WARN") {
		t.Errorf("log: %s", log)
	}
}

func TestStart_systemdRefuses_machineRunsAndCgroupIsShown(t *testing.T) {
	cases := map[string]struct {
		manager *fakeManager
		says    string
	}{
		"refuses": {&fakeManager{refuse: func(string) *dbus.Error {
			return dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{"not for you"})
		}}, "not for you"},
		"job fails":       {&fakeManager{result: "failed"}, "failed"},
		"job never ends":  {&fakeManager{}, "does not tell the end"},
		"nobody is there": {nil, "org.freedesktop.systemd1"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			address := newBus(t)
			if c.manager != nil {
				c.manager.serve(t, address)
			}
			r := newRig(t)
			log := r.logTo()
			r.bus, r.timing.Bus = Bus{Address: address}, time.Second
			vm := r.vm("web", bareBoard)
			r.start(vm, false)
			if text := log.String(); !strings.Contains(text, "level=WARN") || !strings.Contains(text, c.says) || !strings.Contains(text, "vm=web") {
				t.Errorf("log %q does not warn that %q", text, c.says)
			}
			o := r.observe(vm, driver.DepthFull, driver.Alive)
			if own := r.proc.cgroup(os.Getpid()); o.Cgroup != own || own == "" {
				t.Errorf("Cgroup = %q, want the caller's, %q", o.Cgroup, own)
			}
		})
	}
}

func TestStart_busHangs_startGoesOnInTime(t *testing.T) {
	socket := filepath.Join(shortDir(t), "bus")
	var listen net.ListenConfig
	l, err := listen.Listen(t.Context(), "unix", socket) // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	r := newRig(t)
	log := r.logTo()
	r.bus, r.timing.Bus = Bus{Address: busAddress(socket)}, 200*time.Millisecond
	begun := time.Now()
	r.start(r.vm("web", bareBoard), false)
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the start took %s", took)
	}
	if !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("log: %s", log)
	}
}

func TestStart_failsWhileSystemdIsAsked_isNotDelayed(t *testing.T) {
	address := newBus(t)
	manager := &fakeManager{} // its jobs never end
	manager.serve(t, address)
	r := newRig(t)
	r.bus, r.timing.Bus, r.timing.Start = Bus{Address: address}, time.Minute, 300*time.Millisecond
	vm := r.vm("web", bareBoard)
	vm.Spec.Emulator.Binary = silentQEMU(t)
	if _, err := r.EnsureIdentity(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := r.Start(ctx, driver.StartRequest{VM: vm}); err == nil || ctx.Err() != nil {
		t.Errorf("Start = %v, with the context at %v", err, ctx.Err())
	}
}

func TestFindBus_hosts_onlyAnsweringSystemdCounts(t *testing.T) {
	dir := shortDir(t)
	for _, sub := range []string{"booted/run/systemd/system", "booted/run/dbus", "container/run/dbus", "busless/run/systemd/system", "user"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, socket := range []string{"booted/run/dbus/system_bus_socket", "container/run/dbus/system_bus_socket", "user/bus"} {
		var listen net.ListenConfig
		l, err := listen.Listen(t.Context(), "unix", filepath.Join(dir, socket))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
	}
	user := filepath.Join(dir, "user")
	for name, c := range map[string]struct {
		host, runtime string
		root          bool
		want          Bus
	}{
		"root":                 {"booted", "", true, Bus{Address: busAddress(filepath.Join(dir, "booted/run/dbus/system_bus_socket"))}},
		"root in a container":  {"container", "", true, Bus{}},
		"root without a bus":   {"busless", "", true, Bus{}},
		"user":                 {"booted", user, false, Bus{Address: busAddress(filepath.Join(user, "bus")), User: true}},
		"user without session": {"booted", "", false, Bus{}},
		"user of no bus":       {"booted", dir, false, Bus{}},
	} {
		getenv := func(key string) string {
			if key == "XDG_RUNTIME_DIR" {
				return c.runtime
			}
			return ""
		}
		if got := findBus(getenv, c.root, filepath.Join(dir, c.host)); got != c.want {
			t.Errorf("%s: bus %+v, want %+v", name, got, c.want)
		}
	}
}

func TestCgroup_hierarchies_systemdsOwnIsTold(t *testing.T) {
	for text, want := range map[string]string{
		"0::/machine.slice/maqet-web.scope\n":                         "/machine.slice/maqet-web.scope",
		"2:cpu:/a\n1:name=systemd:/user.slice/x:y.scope\n0::/other\n": "/user.slice/x:y.scope",
		"2:cpu:/a\n0::/\n": "/",
		"":                 "",
	} {
		p := procfs{t.TempDir()}
		if err := os.Mkdir(p.path(7, ""), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p.path(7, "cgroup"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := p.cgroup(7); got != want {
			t.Errorf("cgroup of %q = %q, want %q", text, got, want)
		}
	}
	if got := (procfs{t.TempDir()}).cgroup(7); got != "" {
		t.Errorf("cgroup of no process = %q", got)
	}
}
