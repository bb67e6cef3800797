package guest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/maqet/maqet/internal/filelock"
)

// Marker is what the guest's readiness line on ttyS0 starts with.
const Marker = "maqet-guest ready"

// DefaultCmdline is the kernel command line the guest is meant to be booted with;
// switches (see the package comment) are appended to it.
const DefaultCmdline = "console=ttyS0 quiet"

const (
	kernelName   = "vmlinuz"
	initrdName   = "initrd.img"
	manifestName = "manifest.json"
)

// Guest is a built tiny guest.
type Guest struct {
	// Kernel and Initrd are absolute paths for QEMU's -kernel and -initrd.
	Kernel string
	Initrd string
	// Marker is what the readiness line on ttyS0 starts with.
	Marker string
	// Cmdline is the command line for -append, to which switches may be added.
	Cmdline string
	// Packages names the versions of the Debian packages inside.
	Packages map[string]string
}

// record is the content of manifest.json: what was built, from what, by which recipe.
type record struct {
	Recipe   string            `json:"recipe"`
	Packages map[string]string `json:"packages"`
	SHA256   map[string]string `json:"sha256"`
}

// Build makes the guest of a flavour in dir and returns it. It does nothing when dir already
// holds a guest of the same recipe. Any number of processes may build one folder
// at once: one works, the others wait for it, at most until ctx ends.
func Build(ctx context.Context, dir string, flavour Flavour) (g Guest, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return Guest{}, fmt.Errorf("tiny guest: %w", err)
	}
	if g, ok := cached(dir, flavour); ok {
		return g, nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return Guest{}, fmt.Errorf("tiny guest: %w", err)
	}
	lock, err := filelock.New().Lock(ctx, filepath.Join(dir, ".lock"))
	if err != nil {
		return Guest{}, fmt.Errorf("tiny guest: wait for another build in %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	if g, ok := cached(dir, flavour); ok {
		return g, nil
	}
	if err := build(ctx, dir, flavour); err != nil {
		return Guest{}, fmt.Errorf("tiny guest in %s: %w", dir, err)
	}
	g, ok := cached(dir, flavour)
	if !ok {
		return Guest{}, fmt.Errorf("tiny guest in %s: built files do not match %s; remove the folder and build again", dir, manifestName)
	}
	return g, nil
}

// build downloads, unpacks and packs, in a scratch folder beside the result, and
// puts the manifest in place last, so that a build cut off half-way is no guest.
func build(ctx context.Context, dir string, flavour Flavour) (err error) {
	scratch, err := os.MkdirTemp(dir, ".work-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()

	pkgs, err := fetch(ctx, filepath.Join(dir, "packages"), flavour)
	if err != nil {
		return err
	}
	tree, err := unpack(ctx, pkgs, flavour.modules, scratch)
	if err != nil {
		return err
	}
	initrd := filepath.Join(scratch, initrdName)
	if err := writeInitramfs(ctx, tree, initrd); err != nil {
		return err
	}

	rec := record{Recipe: recipe(flavour), Packages: map[string]string{}, SHA256: map[string]string{}}
	for _, p := range pkgs {
		rec.Packages[p.Name] = p.Version
	}
	for name, from := range map[string]string{kernelName: tree.kernel, initrdName: initrd} {
		if rec.SHA256[name], err = fileSum(from); err != nil {
			return err
		}
		if err := os.Rename(from, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return writeRecord(scratch, filepath.Join(dir, manifestName), rec)
}

func writeRecord(scratch, path string, rec record) error {
	data, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(scratch, manifestName)
	if err := os.WriteFile(tmp, append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// cached returns the guest in dir when its recipe is the present one and its files
// are whole. A damaged or missing file only means that it is built again.
func cached(dir string, flavour Flavour) (Guest, bool) {
	data, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		return Guest{}, false
	}
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil || rec.Recipe != recipe(flavour) {
		return Guest{}, false
	}
	for _, name := range []string{kernelName, initrdName} {
		sum, err := fileSum(filepath.Join(dir, name))
		if err != nil || sum != rec.SHA256[name] {
			return Guest{}, false
		}
	}
	return Guest{
		Kernel:   filepath.Join(dir, kernelName),
		Initrd:   filepath.Join(dir, initrdName),
		Marker:   Marker,
		Cmdline:  DefaultCmdline,
		Packages: rec.Packages,
	}, true
}

// recipe identifies everything of this package that decides what the guest is.
func recipe(flavour Flavour) string {
	sum := sha256.New()
	_ = fs.WalkDir(rootfs, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := rootfs.ReadFile(path)
		fmt.Fprintf(sum, "%s %d\n%s", path, len(data), data)
		return err
	})
	fmt.Fprintln(sum, flavour.meta, flavour.modules, folders)
	return hex.EncodeToString(sum.Sum(nil))
}
