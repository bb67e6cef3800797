package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
)

// exampleManifest is the machine that the examples of the help call web.
const exampleManifest = `apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata: {name: web}
spec:
  machine: {type: q35}
  memory: {size: 64Mi}
  disks: [{name: root, size: 1Mi}]
  serial: {log: true}
  devices: [{name: vga, driver: VGA}]
  cloudInit: {userData: "#cloud-config\n"}
  shutdown: {timeout: 100ms}
`

// exampleImage is the image that they call debian-12.
const exampleImage = `apiVersion: maqet.io/v1alpha1
kind: Image
metadata: {name: debian-12}
spec: {source: ../disk.raw, format: raw}
`

// exampleGuest is what is added to the machine when an example talks to its guest.
const exampleGuest = `  boot: {kernel: {image: KERNEL, initrd: INITRD, cmdline: "CMDLINE"}}
  guestAgent: {}
  readiness: {guestAgent: {}}
`

// examplePrepare makes in that guest what the examples find there.
const examplePrepare = `mkdir -p /etc/ssh /var/log /usr/local/bin && echo Port 22 >/etc/ssh/sshd_config && echo root:x:0 >/etc/passwd && echo up >/var/log/syslog &&
	printf '#!/bin/sh\necho active\n' >/bin/systemctl && chmod +x /bin/systemctl`

// talks tells an example that needs a guest with an agent.
func talks(line string) bool {
	return strings.HasPrefix(line, "maqet exec ") || strings.HasPrefix(line, "maqet cp ")
}

// expects tells an example that needs a guest which answers on its serial line.
func expects(line string) bool { return strings.Contains(line, " --expect ") }

// endless are the commands that only an interruption ends.
func endless(line string) bool {
	return strings.HasPrefix(line, "maqet console ") && !expects(line) || strings.HasSuffix(line, " -f") || strings.HasSuffix(line, " -w") || watches(line)
}

// watches tells a command whose end by interruption is its regular one.
func watches(line string) bool { return strings.HasPrefix(line, "maqet watch ") }

func TestHelp_everyExample_runs(t *testing.T) {
	lines := examplesOf(t)
	if len(lines) < 20 {
		t.Fatalf("the help has only these examples: %q", lines)
	}
	for _, line := range lines {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			h := host.New(t, binary)
			dir := exampleDir(t, line)
			h.Must(t, 0, "apply", "-f", filepath.Join(dir, "vms"), "--wait")
			if talks(line) {
				h.Must(t, 0, "exec", "web", "--", "sh", "-c", examplePrepare)
			}
			if !strings.Contains(line, "snapshot create") {
				h.Must(t, 0, "snapshot", "create", "web", "before-upgrade", "--method", "Disk")
			}
			if strings.Contains(line, keptExample) {
				keepDisk(t, h)
			}
			if backsUp(line) {
				h.Must(t, 0, "backup", "now", "web")
			}
			want := 0
			if endless(line) && !watches(line) {
				want = 130
			}
			if code, printed := runExample(t, h, dir, line); code != want {
				t.Errorf("exit code %d, want %d, printed:\n%s", code, want, printed)
			}
		})
	}
}

// backsUp tells a command about backups, which needs one.
func backsUp(line string) bool { return strings.Contains(line, "maqet backup ") }

// keptExample is what the examples say was kept of a deleted machine.
const keptExample = "kept/web-1a2b3c4d"

// keepDisk makes the disk that was kept.
func keepDisk(t *testing.T, h *host.Host) {
	t.Helper()
	dir := filepath.Join(h.State, "disks", "."+keptExample)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "root.qcow2")
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-f", "qcow2", image, "1M").CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
}

// exampleDir has what the examples name: vms/, web.yaml, the file of an image, and what
// is copied into a guest. The machine has a guest with an agent, the one that echoes what
// is typed, or none, as an example needs it.
func exampleDir(t *testing.T, line string) string {
	t.Helper()
	dir := t.TempDir()
	machine := exampleManifest
	if expects(line) {
		machine += "  boot: {order: [echo]}\n"
		machine = strings.Replace(machine, "size: 1Mi}", "size: 1Mi}, {name: echo, file: "+filepath.Join(dir, "echo.img")+", format: raw, readOnly: true}", 1)
		if err := guest.WriteEcho(filepath.Join(dir, "echo.img")); err != nil {
			t.Fatal(err)
		}
	}
	if talks(line) {
		g := guest.AgentPath(t)
		machine = strings.Replace(machine, "64Mi", "160Mi", 1) + strings.NewReplacer("KERNEL", g.Kernel, "INITRD", g.Initrd, "CMDLINE", g.Cmdline).Replace(exampleGuest)
	}
	for _, folder := range []string{"vms", "backups"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if backsUp(line) {
		machine += fmt.Sprintf("  backup: {target: %q}\n", filepath.Join(dir, "backups"))
	}
	for name, text := range map[string]string{
		"web.yaml": machine, "vms/web.yaml": machine, "vms/image.yaml": exampleImage, "disk.raw": strings.Repeat("disk", 1<<10),
		"app.conf": "port = 80\n", "deploy.sh": "#!/bin/sh\n", "motd": "hello\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// examplesOf are the example lines of every command's help.
func examplesOf(t *testing.T) []string {
	t.Helper()
	h := host.New(t, binary)
	var lines []string
	todo := [][]string{nil}
	for len(todo) > 0 {
		command := todo[0]
		todo = todo[1:]
		help := h.Must(t, 0, append(append([]string{}, command...), "--help")...)
		at := ""
		for line := range strings.Lines(help) {
			word, isEntry := strings.CutPrefix(strings.TrimRight(line, "\n"), "  ")
			switch {
			case !strings.HasPrefix(line, " "):
				at = strings.TrimSpace(line)
			case at == "Examples:" && isEntry:
				lines = append(lines, strings.TrimSpace(word))
			case listsCommands(at) && isEntry && !strings.HasPrefix(word, "help "):
				name, _, _ := strings.Cut(word, " ")
				todo = append(todo, append(append([]string{}, command...), name))
			}
		}
	}
	return lines
}

// listsCommands tells a heading above subcommands from those above other things.
func listsCommands(heading string) bool {
	switch heading {
	case "", "Usage:", "Examples:", "Aliases:", "Flags:", "Global Flags:", "Additional help topics:":
		return false
	default:
		return strings.HasSuffix(heading, ":")
	}
}

// runExample runs a line as bash does, in a folder and with a home of its own.
// An endless one is interrupted.
func runExample(t *testing.T, h *host.Host, dir, line string) (code int, printed string) {
	t.Helper()
	// A folder of the host is the example's own.
	line = strings.NewReplacer("/etc/maqet/vms", filepath.Join(dir, "vms"), "/srv/look", filepath.Join(dir, "look")).Replace(line)
	const shell = "set -o pipefail; fpath=(x \"$HOME\"); mkdir -p ~/.config/fish/completions; "
	cmd := exec.CommandContext(t.Context(), "bash", "-c", shell+line)
	if endless(line) {
		cmd.Args[2] = "exec " + line
	}
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), h.Env()...)
	cmd.Env = append(cmd.Env, "HOME="+t.TempDir(), "PATH="+filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"))
	var out transcript
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if endless(line) {
		// It prints nothing that could be waited for: any moment will do.
		stop := time.AfterFunc(time.Second, func() {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Errorf("interrupt: %v", err)
			}
		})
		defer stop.Stop()
	}
	if err := cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}
