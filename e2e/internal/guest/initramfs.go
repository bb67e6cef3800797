package guest

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cavaliergopher/cpio"
)

//go:embed rootfs
var rootfs embed.FS

// folders are the empty folders of the root file system, parents first.
var folders = []string{"bin", "sbin", "dev", "proc", "sys", "run", "tmp", "mnt", "www", "etc", "etc/acpi", "etc/acpi/PWRF"}

// unpacked is what of the packages the guest is made of.
type unpacked struct {
	kernel  string // the bzImage
	busybox string // the static binary
	release string // the kernel release, as in uname -r
	modules string // the folder holding the modules and nothing else
}

// unpack extracts the packages into scratch and chooses the modules.
func unpack(ctx context.Context, pkgs []debPackage, modules []string, scratch string) (unpacked, error) {
	tree := filepath.Join(scratch, "tree")
	for _, p := range pkgs {
		if _, err := output(ctx, "", "dpkg-deb", "--extract", p.File, tree); err != nil {
			return unpacked{}, err
		}
	}
	kernels, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err != nil {
		return unpacked{}, err
	}
	if len(kernels) != 1 {
		return unpacked{}, fmt.Errorf("%d kernels in the kernel package, want 1", len(kernels))
	}
	u := unpacked{
		kernel:  kernels[0],
		busybox: filepath.Join(tree, "bin", "busybox"),
		release: strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-"),
	}
	all := filepath.Join(tree, "lib", "modules", u.release)
	chosen, err := chooseModules(ctx, u, modules, tree, all)
	if err != nil {
		return unpacked{}, err
	}
	root := filepath.Join(scratch, "modules")
	u.modules = filepath.Join(root, "lib", "modules", u.release)
	if err := os.MkdirAll(u.modules, 0o750); err != nil {
		return unpacked{}, err
	}
	for _, path := range chosen {
		if err := os.Rename(filepath.Join(all, path), filepath.Join(u.modules, filepath.Base(path))); err != nil {
			return unpacked{}, err
		}
	}
	// Again over the chosen few: the guest's modprobe reads this index at every call.
	_, err = output(ctx, "", u.busybox, "depmod", "-b", root, u.release)
	return u, err
}

// chooseModules returns the paths, below all, of the wanted modules and of those
// they need. Debian's package comes without an index (its installation makes it),
// so it is made here.
func chooseModules(ctx context.Context, u unpacked, modules []string, tree, all string) ([]string, error) {
	if _, err := output(ctx, "", u.busybox, "depmod", "-b", tree, u.release); err != nil {
		return nil, err
	}
	index, err := os.ReadFile(filepath.Join(all, "modules.dep"))
	if err != nil {
		return nil, err
	}
	needs := map[string][]string{}
	byName := map[string]string{}
	for line := range strings.Lines(string(index)) {
		path, deps, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		needs[path] = strings.Fields(deps)
		byName[strings.TrimSuffix(filepath.Base(path), ".ko")] = path
	}
	builtin, err := os.ReadFile(filepath.Join(all, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	var chosen []string
	for _, name := range modules {
		path, ok := byName[name]
		if !ok && strings.Contains(string(builtin), "/"+name+".ko\n") {
			continue // the kernel has it in itself
		}
		if !ok {
			return nil, fmt.Errorf("kernel %s has no module %s", u.release, name)
		}
		// modules.dep is transitive: each line names all that must be loaded before.
		chosen = append(chosen, path)
		chosen = append(chosen, needs[path]...)
	}
	slices.Sort(chosen)
	return slices.Compact(chosen), nil
}

// writeInitramfs packs the root file system as a cpio archive. It is not
// compressed: QEMU copies it in milliseconds, and inflating it without KVM costs more.
func writeInitramfs(ctx context.Context, u unpacked, path string) error {
	applets, err := output(ctx, "", u.busybox, "--list")
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	a := &archive{w: cpio.NewWriter(&buf)}
	for _, dir := range folders {
		a.add(dir, cpio.TypeDir|0o755, nil)
	}
	a.addFile("bin/busybox", 0o755, u.busybox)
	for applet := range strings.FieldsSeq(applets) {
		if applet != "busybox" {
			a.add("bin/"+applet, cpio.TypeSymlink|0o777, []byte("busybox"))
		}
	}
	// Where the kernel looks when it wants a module itself, to mount a file system for example.
	a.add("sbin/modprobe", cpio.TypeSymlink|0o777, []byte("../bin/busybox"))
	a.addModules(u)
	a.addScripts()
	if err := a.close(); err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	return os.WriteFile(path, buf.Bytes(), 0o600)
}

// archive writes cpio entries and keeps the first error.
type archive struct {
	w   *cpio.Writer
	err error
}

func (a *archive) add(name string, mode cpio.FileMode, content []byte) {
	if a.err != nil {
		return
	}
	// A symbolic link's target is its content.
	if a.err = a.w.WriteHeader(&cpio.Header{Name: name, Mode: mode, Size: int64(len(content))}); a.err == nil {
		_, a.err = a.w.Write(content)
	}
}

func (a *archive) addFile(name string, perm cpio.FileMode, from string) {
	content, err := os.ReadFile(from)
	if err != nil && a.err == nil {
		a.err = err
	}
	a.add(name, cpio.TypeReg|perm, content)
}

func (a *archive) addModules(u unpacked) {
	dir := "lib"
	for _, part := range []string{"", "modules", u.release} {
		dir = filepath.Join(dir, part)
		a.add(dir, cpio.TypeDir|0o755, nil)
	}
	entries, err := os.ReadDir(u.modules)
	if err != nil && a.err == nil {
		a.err = err
	}
	for _, entry := range entries {
		a.addFile(filepath.Join(dir, entry.Name()), 0o644, filepath.Join(u.modules, entry.Name()))
	}
}

func (a *archive) addScripts() {
	err := fs.WalkDir(rootfs, "rootfs", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := rootfs.ReadFile(path)
		if err != nil {
			return err
		}
		a.add(strings.TrimPrefix(path, "rootfs/"), cpio.TypeReg|0o755, content)
		return a.err
	})
	if err != nil && a.err == nil {
		a.err = err
	}
}

func (a *archive) close() error {
	if a.err != nil {
		return a.err
	}
	return a.w.Close()
}
