package qemu

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

// realTimeout bounds everything one test asks of a real QEMU.
const realTimeout = 60 * time.Second

// realHost is the QEMU of this machine; without one the test is skipped.
func realHost(t testing.TB) driver.Host {
	t.Helper()
	return realHostOf(t, "qemu-system-x86_64")
}

func realHostOf(t testing.TB, binary string) driver.Host {
	t.Helper()
	if _, err := exec.LookPath(binary); err != nil {
		t.Skip(binary + " is not installed")
	}
	l := layout.Layout{State: t.TempDir(), Run: t.TempDir()}
	host, err := NewProber(l, timing.Default(), filelock.New()).Host(t.Context(), binary)
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// shortDir is a folder whose sockets' paths fit their 107 bytes.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mq") //nolint:usetesting // t.TempDir is named after the test, which is too long for a socket's path.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// realRun is a rendered command that runs.
type realRun struct {
	cmd  *exec.Cmd
	conn *qmp.Conn
	log  lastWords
}

// prepareFiles makes everything the command line names: folders, disks, kernels.
func prepareFiles(t testing.TB, in RenderInput) {
	t.Helper()
	name := in.VM.Metadata.Name
	for _, dir := range []string{in.Layout.RunDir(name), in.Layout.DiskDir(name), in.Layout.LogDir(name)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range in.VM.Spec.Disks {
		if d.IsEmpty() {
			continue
		}
		file := d.File
		if file == "" {
			file = in.Layout.Disk(name, d.Name)
		}
		if _, err := os.Stat(file); err == nil {
			continue
		}
		// Made under a plain name: qemu-img reads names such as json:... itself.
		temp := filepath.Join(t.TempDir(), "image")
		out, err := exec.Command("qemu-img", "create", "-q", "-f", string(d.Format), temp, "1M").CombinedOutput() //nolint:gosec // G204: a test's own arguments.
		if err != nil {
			t.Fatalf("qemu-img: %v: %s", err, out)
		}
		image, err := os.ReadFile(temp)
		if err != nil {
			t.Fatal(err)
		}
		writeTestFile(t, file, image)
	}
	if b := in.VM.Spec.Boot; b != nil && b.Kernel != nil {
		writeTestFile(t, b.Kernel.Image, kernelImage())
		writeTestFile(t, b.Kernel.Initrd, []byte("initrd"))
	}
	for _, f := range in.VM.Spec.Filesystems {
		if err := os.MkdirAll(f.Path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	prepareProvisioning(t, in)
}

// kernelImage is enough of a Linux kernel for QEMU, which loads it and does not
// run it here: the setup header of boot protocol 2.12.
func kernelImage() []byte {
	image := make([]byte, 64<<10)
	image[0x1f1] = 4 // setup sectors
	copy(image[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(image[0x206:], 0x020c)
	image[0x211] = 1                                         // loaded high
	binary.LittleEndian.PutUint32(image[0x22c:], 0x7fffffff) // highest address of the initrd
	return image
}

func writeTestFile(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil { //nolint:gosec // G703: awkward paths are what is tested.
		t.Fatal(err)
	}
}

// openFiles opens what the command inherits, and the connection to QMP.
func openFiles(t testing.TB, in RenderInput, files []File) ([]*os.File, net.Conn) {
	t.Helper()
	name := in.VM.Metadata.Name
	paths := map[FileKind]string{
		QMPListener: in.Layout.QMPSocket(name), CLIListener: in.Layout.CLISocket(name), SerialListener: in.Layout.SerialSocket(name), AgentListener: in.Layout.AgentSocket(name),
	}
	var opened []*os.File
	for _, f := range files {
		switch f.Kind {
		case Tap:
			opened = append(opened, openTap(t))
		case TPMControl:
			opened = append(opened, openTPM(t))
		case VirtioFS:
			opened = append(opened, openVirtioFS(t, in, f.Filesystem))
		case QMPListener, CLIListener, SerialListener, AgentListener:
			opened = append(opened, listenFile(t, paths[f.Kind]))
		default:
			t.Fatalf("unknown kind of descriptor %q", f.Kind)
		}
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "unix", paths[QMPListener])
	if err != nil {
		t.Fatal(err)
	}
	return opened, conn
}

func listenFile(t testing.TB, path string) *os.File {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	file, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

// openTPM starts a swtpm, and is QEMU's end of the pair.
func openTPM(t testing.TB) *os.File {
	t.Helper()
	needSWTPM(t)
	binary, err := exec.LookPath(swtpmBinary)
	if err != nil {
		t.Fatal(err)
	}
	module := &tpm{binary: binary, dir: t.TempDir()}
	end, err := module.pair()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := module.start(t.Context(), null, null, nil); err != nil {
		t.Fatal(err)
	}
	if err := null.Close(); err != nil {
		t.Error(err)
	}
	return end
}

// openTap opens a tap device, or skips the test where that is not allowed.
func openTap(t testing.TB) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no tap devices here: %v", err)
	}
	file := os.NewFile(uintptr(fd), "tap")
	t.Cleanup(func() { _ = file.Close() })
	request, err := unix.NewIfreq("mqtest%d")
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		t.Skipf("a tap device cannot be made here: %v", err)
	}
	return file
}

// startReal starts a command as it was rendered, and returns when QEMU has
// answered query-status. It is killed when the test ends.
func startReal(t testing.TB, in RenderInput) *realRun {
	t.Helper()
	command, err := Render(in)
	if err != nil {
		t.Fatal(err)
	}
	prepareFiles(t, in)
	files, nc := openFiles(t, in, command.Files)
	run := &realRun{cmd: exec.Command(command.Argv[0], command.Argv[1:]...)} //nolint:gosec // G204: the rendered command is what is tested.
	run.cmd.Stderr, run.cmd.ExtraFiles = &run.log, files
	if err := run.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(run.stop)
	ctx, cancel := context.WithTimeout(t.Context(), realTimeout)
	defer cancel()
	status := qmp.NewCall("query-status", nil, nil)
	run.conn, err = qmp.New(ctx, nc, qmp.Options{Handshake: realTimeout}, status)
	if err == nil {
		err = status.Wait(ctx)
	}
	if err != nil {
		run.stop()
		t.Fatalf("QEMU did not answer: %v\nits last line: %s", err, run.log.line())
	}
	return run
}

// stop ends QEMU, at once; a second call does nothing.
func (r *realRun) stop() {
	if r.cmd.ProcessState != nil {
		return
	}
	if r.conn != nil {
		_ = r.conn.Close()
	}
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait() // It was killed, as the status says.
}

// do asks QEMU one thing.
func (r *realRun) do(t testing.TB, command string, args, result any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), realTimeout)
	defer cancel()
	if err := r.conn.Do(ctx, command, args, result); err != nil {
		t.Fatal(err)
	}
}

// property is a property of an object of QEMU.
func (r *realRun) property(t testing.TB, path, name string) any {
	t.Helper()
	var value any
	r.do(t, "qom-get", map[string]string{"path": path, "property": name}, &value)
	return value
}

// realInput is a case with files that exist and the QEMU of this machine.
func realInput(t testing.TB, c argvCase, host driver.Host) RenderInput {
	t.Helper()
	dir := shortDir(t)
	in := c.renderInput(t, host, layout.Layout{State: filepath.Join(dir, "state"), Run: filepath.Join(dir, "run")}, filepath.Join(dir, "files"))
	return in
}

func TestRender_realQEMU_everyGoldenStartsAndAnswers(t *testing.T) {
	host := realHost(t)
	for _, c := range argvCases() {
		if c.elsewhere {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			host := host
			if c.arm {
				host = realHostOf(t, "qemu-system-aarch64")
			}
			in := realInput(t, c, host)
			in.Paused = true
			run := startReal(t, in)
			var status struct{ Status string }
			var uid struct{ UUID string }
			var name struct{ Name string }
			run.do(t, "query-status", nil, &status)
			run.do(t, "query-uuid", nil, &uid)
			run.do(t, "query-name", nil, &name)
			if status.Status != "prelaunch" || uid.UUID != in.Identity.UID || name.Name != c.name {
				t.Errorf("QEMU says %q, %q, %q; want prelaunch, %q, %q", status.Status, uid.UUID, name.Name, in.Identity.UID, c.name)
			}
			want, err := Render(in)
			if err != nil {
				t.Fatal(err)
			}
			cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(run.cmd.Process.Pid), "cmdline"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want.Argv, strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")); diff != "" {
				t.Errorf("/proc shows another command line (-want +got):\n%s", diff)
			}
			if _, err := os.Stat(in.Layout.PIDFile(c.name)); err != nil {
				t.Errorf("no pid file: %v", err)
			}
		})
	}
}

// blockNode is what the test reads of query-named-block-nodes.
type blockNode struct {
	NodeName string `json:"node-name"`
	Driver   string `json:"drv"`
	File     string `json:"file"`
	ReadOnly bool   `json:"ro"`
	Image    struct{ Filename string }
}

// TestRender_realQEMU_awkwardText asks QEMU for every free text of a manifest.
func TestRender_realQEMU_awkwardTextArrivesIntact(t *testing.T) {
	host := realHost(t)
	cases := argvCases()
	c := cases[len(cases)-1]
	dir := filepath.Join(shortDir(t), "a,b=c d'é")
	in := c.renderInput(t, host, layout.Layout{State: filepath.Join(dir, "s,t=u"), Run: filepath.Join(dir, "r,s")}, filepath.Join(dir, "files"))
	run := startReal(t, in)

	var nodes []blockNode
	run.do(t, "query-named-block-nodes", map[string]bool{"flat": true}, &nodes)
	files := map[string]blockNode{}
	for _, n := range nodes {
		files[n.NodeName] = n
	}
	for _, d := range in.VM.Spec.Disks {
		file, format := files[FileNode(d.Name)], files[d.Name]
		if file.Driver != "file" || file.Image.Filename != d.File {
			t.Errorf("disk %s: QEMU has driver %q on %q, want file on %q", d.Name, file.Driver, file.Image.Filename, d.File)
		}
		if format.Driver != string(d.Format) || format.ReadOnly != d.ReadOnly {
			t.Errorf("disk %s: QEMU has format %q, read-only %v", d.Name, format.Driver, format.ReadOnly)
		}
	}
	kernel, machine := in.VM.Spec.Boot.Kernel, in.VM.Spec.Machine.Properties
	for _, want := range []struct{ path, property, value string }{
		{"/machine", "kernel", kernel.Image},
		{"/machine", "initrd", kernel.Initrd},
		{"/machine", "append", kernel.Cmdline},
		{"/machine", "x-oem-id", machine["x-oem-id"].String()},
		{"/machine", "x-oem-table-id", machine["x-oem-table-id"].String()},
		{"/machine/peripheral/agent", "name", in.VM.Spec.Devices[1].Properties["name"].String()},
	} {
		if got := run.property(t, want.path, want.property); got != want.value {
			t.Errorf("%s of %s is %q, want %q", want.property, want.path, got, want.value)
		}
	}
	for _, path := range []string{in.Layout.PIDFile(c.name), in.Layout.SerialLog(c.name)} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("QEMU did not make the file where it was told to: %v", err)
		}
	}
}

// TestRender_realQEMU_whatItSaysIsWhatWasAsked reads a whole machine back.
func TestRender_realQEMU_machineIsAsAsked(t *testing.T) {
	host := realHost(t)
	c := argvCase{name: "asked", spec: func(string) manifest.VirtualMachineSpec {
		return manifest.VirtualMachineSpec{
			Machine: &manifest.Machine{Type: "q35", Properties: props("hpet", false)},
			CPU:     &manifest.CPU{Model: "max", Topology: &manifest.Topology{Sockets: 1, Cores: 2, Threads: 2}},
			Memory:  &manifest.Memory{Size: 192 << 20},
			NICs:    []manifest.NIC{{Name: "lan", Model: "e1000e", MAC: "52:54:00:12:34:56", User: &manifest.UserNet{Forward: []string{"tcp:127.0.0.1:23399:22"}}}},
			Devices: []manifest.Device{{Name: "rng", Driver: "virtio-rng-pci", Properties: props("max-bytes", 1024)}},
		}
	}, paused: true}
	run := startReal(t, realInput(t, c, host))
	var memory struct {
		Base int64 `json:"base-memory"`
	}
	run.do(t, "query-memory-size-summary", nil, &memory)
	if memory.Base != 192<<20 {
		t.Errorf("memory is %d", memory.Base)
	}
	got, ok := run.property(t, "/machine", "smp").(map[string]any)
	if !ok || got["cpus"] != 4.0 || got["sockets"] != 1.0 || got["cores"] != 2.0 || got["threads"] != 2.0 {
		t.Errorf("smp is %v", got)
	}
	if hpet := run.property(t, "/machine", "hpet"); hpet != false {
		t.Errorf("hpet is %v", hpet)
	}
	if mac := run.property(t, "/machine/peripheral/lan", "mac"); mac != "52:54:00:12:34:56" {
		t.Errorf("MAC is %v", mac)
	}
	if netdev := run.property(t, "/machine/peripheral/lan", "netdev"); netdev != NetdevID("lan") {
		t.Errorf("netdev is %v", netdev)
	}
	if most := run.property(t, "/machine/peripheral/rng", "max-bytes"); most != 1024.0 {
		t.Errorf("max-bytes is %v", most)
	}
	var network string
	run.do(t, "human-monitor-command", map[string]string{"command-line": "info usernet"}, &network)
	if !strings.Contains(network, "23399") || !strings.Contains(network, "127.0.0.1") {
		t.Errorf("the forward is not there:\n%s", network)
	}
}

// pciPlaces are where QEMU says its named devices are: "bus:slot.function".
func pciPlaces(t testing.TB, run *realRun) (places map[string]string, numbered bool) {
	t.Helper()
	type pciDevice struct {
		ID       string `json:"qdev_id"`
		Bus      int
		Slot     int
		Function int
		Bridge   *struct {
			Bus     struct{ Secondary int }
			Devices []json.RawMessage
		} `json:"pci_bridge"`
	}
	var buses []struct{ Devices []json.RawMessage }
	run.do(t, "query-pci", nil, &buses)
	places, numbered = map[string]string{}, true
	var walk func(list []json.RawMessage)
	walk = func(list []json.RawMessage) {
		for _, raw := range list {
			var d pciDevice
			if err := json.Unmarshal(raw, &d); err != nil {
				t.Fatal(err)
			}
			if d.ID != "" {
				places[d.ID] = strconv.Itoa(d.Bus) + ":" + strconv.Itoa(d.Slot) + "." + strconv.Itoa(d.Function)
			}
			if d.Bridge != nil {
				// 255 is what the firmware writes before it gives a number.
				n := d.Bridge.Bus.Secondary
				numbered = numbered && n != 0 && n != 255
				walk(d.Bridge.Devices)
			}
		}
	}
	for _, b := range buses {
		walk(b.Devices)
	}
	return places, numbered
}

// waitNumbered waits until the guest's firmware has numbered the buses.
func waitNumbered(t testing.TB, run *realRun) map[string]string {
	t.Helper()
	deadline := time.NewTimer(realTimeout)
	defer deadline.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		places, numbered := pciPlaces(t, run)
		if numbered {
			return places
		}
		select {
		case <-look.C:
		case <-deadline.C:
			t.Fatalf("the firmware has numbered no buses within %s: %v", realTimeout, places)
		}
	}
}

func TestRender_realQEMU_aMiddleDiskRemoved_movesNothingElse(t *testing.T) {
	host := realHost(t)
	for _, board := range []string{"q35", "pc"} {
		t.Run(board, func(t *testing.T) {
			spec := func(disks ...string) func(string) manifest.VirtualMachineSpec {
				return func(string) manifest.VirtualMachineSpec {
					s := manifest.VirtualMachineSpec{
						Emulator: &manifest.Emulator{Accelerators: []string{"tcg"}},
						Machine:  &manifest.Machine{Type: board},
						NICs:     []manifest.NIC{userNIC("lan")},
						Devices:  []manifest.Device{{Name: "rng", Driver: "virtio-rng-pci"}},
					}
					for _, name := range disks {
						s.Disks = append(s.Disks, sized(name))
					}
					return s
				}
			}
			whole := argvCase{name: "slots", spec: spec("root", "swap", "data")}
			run := startReal(t, realInput(t, whole, host))
			before := waitNumbered(t, run)
			run.stop()

			less := argvCase{name: "slots", earlier: whole.spec, spec: spec("root", "data")}
			run = startReal(t, realInput(t, less, host))
			after := waitNumbered(t, run)
			if before["swap"] == "" || after["swap"] != "" {
				t.Fatalf("swap was at %q and is at %q", before["swap"], after["swap"])
			}
			delete(before, "swap")
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("removing a disk moved others (-before +after):\n%s", diff)
			}
			for _, name := range []string{"root", "data", "lan", "rng"} {
				if after[name] == "" {
					t.Errorf("query-pci does not show %s", name)
				}
			}
		})
	}
}
