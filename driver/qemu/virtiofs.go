package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// virtiofsdName is the program that shares a folder by virtiofs.
const virtiofsdName = "virtiofsd"

// virtiofsdPackage names what it comes in on Debian and Ubuntu.
const virtiofsdPackage = "install the package virtiofsd (in Debian 12 and before: qemu-system-common), or use driver: 9p"

// vhostUserFolders are where programs that are a part of a machine are described, as
// QEMU's own docs/interop/vhost-user.json says. A file of an earlier folder stands for
// those of its name in later ones.
func vhostUserFolders() []string {
	return []string{"/etc/qemu/vhost-user", "/usr/share/qemu/vhost-user"}
}

// virtiofsd is one of the two programs of that name.
type virtiofsd struct {
	path string
	// legacy is the one that came with QEMU up to version 7.2. Its options are others.
	legacy bool
	// readOnly tells that it can itself keep guests from writing.
	readOnly bool
}

// findVirtiofsd is its path: what is in PATH, or else what the host's descriptors say.
// It is empty where there is none.
func findVirtiofsd(folders []string) (string, error) {
	if path, err := exec.LookPath(virtiofsdName); err == nil {
		return filepath.Abs(path)
	}
	files, err := describedFiles(folders)
	if err != nil {
		return "", fmt.Errorf("look for %s: %w", virtiofsdName, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file) //nolint:gosec // G304: a descriptor of the host's
		if err != nil {
			continue // somebody has just removed it
		}
		var program struct {
			Type   string `json:"type"`
			Binary string `json:"binary"`
		}
		// An empty file switches one off.
		if json.Unmarshal(text, &program) != nil || program.Type != "fs" || !filepath.IsAbs(program.Binary) {
			continue
		}
		if path, err := exec.LookPath(program.Binary); err == nil {
			return path, nil
		}
	}
	return "", nil
}

// virtiofsd finds the program and asks it which of the two it is. Msg and Hint of the
// problem are empty when all is well.
func (p *Prober) virtiofsd(ctx context.Context) (daemon virtiofsd, problem Finding, err error) {
	path, err := findVirtiofsd(p.vhostUserFolders)
	if err != nil {
		return virtiofsd{}, Finding{}, err
	}
	if path == "" {
		return virtiofsd{}, Finding{Msg: "this host has no virtiofsd, which shares the folder", Hint: virtiofsdPackage}, nil
	}
	asking, cancel := context.WithTimeout(ctx, p.times.Probe)
	defer cancel()
	text, err := helpOf(asking, path)
	switch {
	case ctx.Err() != nil:
		return virtiofsd{}, Finding{}, ctx.Err()
	case err != nil && errors.Is(asking.Err(), context.DeadlineExceeded):
		return virtiofsd{}, Finding{Msg: fmt.Sprintf("%s --help does not end within %s", path, p.times.Probe), Hint: virtiofsdPackage}, nil
	case err != nil:
		return virtiofsd{}, Finding{Msg: fmt.Sprintf("%s cannot be run: %v", path, err), Hint: virtiofsdPackage}, nil
	}
	return virtiofsd{
		path: path, legacy: !strings.Contains(text, "--shared-dir"), readOnly: strings.Contains(text, "--readonly"),
	}, Finding{}, nil
}

// helpOf is what a program says of its options.
func helpOf(ctx context.Context, path string) (string, error) {
	var text bytes.Buffer
	cmd := exec.Command(path, "--help") // killed below when ctx ends
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &text, &text, time.Second
	if err := cmd.Start(); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // it may have ended
	defer stop()
	err := cmd.Wait()
	return text.String(), err
}

// argv is the command line that shares a folder with whoever connects to the socket
// that is descriptor fd. It confines itself to the folder, in namespaces of its own.
func (v virtiofsd) argv(folder string, readOnly bool, fd int) []string {
	argv := []string{v.path, "--fd=" + strconv.Itoa(fd)}
	if v.legacy {
		escaped := strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(folder)
		return append(argv, "-o", "source="+escaped+",sandbox=namespace,announce_submounts,log_level=warn")
	}
	argv = append(argv, "--shared-dir", folder, "--sandbox", "namespace", "--log-level", "warn")
	if readOnly {
		argv = append(argv, "--readonly")
	}
	return argv
}

// needsView tells whether the program has to be shown a folder that cannot be written to,
// since it cannot refuse to write itself.
func (v virtiofsd) needsView(f *manifest.Filesystem) bool { return f.ReadOnly && !v.readOnly }

// unsharable is what keeps this program from sharing a folder here, as the user a, or
// as maqet's own when that is nil.
func (v virtiofsd) unsharable(f *manifest.Filesystem, a *account, euid int) Finding {
	if v.needsView(f) && euid != 0 {
		return Finding{
			Path: ".readOnly", Msg: v.path + " cannot share a folder only for reading, and only root can show it such a folder",
			Hint: "use driver: 9p, or the program of the package virtiofsd (in Debian 13 and later)",
		}
	}
	if euid == 0 && a == nil {
		return Finding{}
	}
	if name := forbiddenNamespaces(euid); name != "" {
		return Finding{
			Path: ".driver", Msg: "this host lets ordinary users have no user namespaces (" + name + "), in which virtiofsd confines itself",
			Hint: "use driver: 9p, run maqet as root without spec.emulator.runAs, or allow them with: sysctl " + name,
		}
	}
	return Finding{}
}

// forbiddenNamespaces is the setting of the kernel by which user namespaces are
// switched off.
func forbiddenNamespaces(euid int) string {
	names := []string{"user.max_user_namespaces"}
	if euid != 0 {
		names = append(names, "kernel.unprivileged_userns_clone") // a setting of Debian's
	}
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/")))
		if err == nil && strings.TrimSpace(string(text)) == "0" {
			return name
		}
	}
	return ""
}

// checkFilesystems checks that board, binary and host can share folders.
func (c *check) checkFilesystems(ctx context.Context, p *Prober) error {
	for i, f := range c.vm.Spec.Filesystems {
		path := fmt.Sprintf("spec.filesystems[%d]", i)
		model := filesystemDevice(f.Driver)
		switch {
		case c.family() == driver.FamilyNone:
			c.find(path, noPCIMessage(model, c.board.Name), noPCIHint)
		case !c.host.Devices[model]:
			c.find(path+".driver", fmt.Sprintf("%s was built without %s", c.host.Binary, model), "use another driver, or another QEMU")
		}
	}
	findings, err := p.unsharable(ctx, c.vm)
	c.findings = append(c.findings, findings...)
	return err
}

// unsharable finds what virtiofs needs and this host does not have.
func (p *Prober) unsharable(ctx context.Context, vm *manifest.VirtualMachine) ([]Finding, error) {
	at := slices.IndexFunc(vm.Spec.Filesystems, func(f manifest.Filesystem) bool { return f.Driver == manifest.FilesystemVirtioFS })
	if at < 0 {
		return nil, nil
	}
	daemon, problem, err := p.virtiofsd(ctx)
	if err != nil {
		return nil, err
	}
	if problem.Msg != "" {
		problem.Path = fmt.Sprintf("spec.filesystems[%d].driver", at)
		return []Finding{problem}, nil
	}
	// An account that cannot be used is another finding.
	a, err := accountOf(vm)
	if err != nil {
		return nil, nil //nolint:nilerr // see above
	}
	var all []Finding
	for i := range vm.Spec.Filesystems {
		f := &vm.Spec.Filesystems[i]
		if f.Driver != manifest.FilesystemVirtioFS {
			continue
		}
		if problem := daemon.unsharable(f, a, os.Geteuid()); problem.Msg != "" {
			problem.Path = fmt.Sprintf("spec.filesystems[%d]%s", i, problem.Path)
			all = append(all, problem)
		}
	}
	return all, nil
}

// sharable tells, before anything is started, why a machine's folders cannot be shared.
func (p *Prober) sharable(ctx context.Context, vm *manifest.VirtualMachine) error {
	if len(vm.Spec.Filesystems) == 0 {
		return nil
	}
	findings, err := p.unsharable(ctx, vm)
	if err != nil {
		return err
	}
	if len(findings) == 0 {
		c := &check{vm: vm, files: p.files}
		c.checkFolders(ctx)
		findings = c.findings
	}
	if len(findings) == 0 {
		return nil
	}
	f := findings[0]
	return &SpecError{VM: vm.Metadata.Name, Path: f.Path, Msg: f.Msg, Hint: f.Hint}
}
