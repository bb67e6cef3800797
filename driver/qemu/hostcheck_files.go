package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	disks "github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/slowfs"
)

// checkFiles finds files that are not there or may not be used. It opens none:
// opening a pipe or a device may wait or act.
func (c *check) checkFiles(ctx context.Context) {
	if b := c.vm.Spec.Boot; b != nil && b.Kernel != nil {
		c.inTime(ctx, "spec.boot.kernel.image", b.Kernel.Image, func(c *check, path, file string) { c.checkFile(path, file, false, false) })
		if b.Kernel.Initrd != "" {
			c.inTime(ctx, "spec.boot.kernel.initrd", b.Kernel.Initrd, func(c *check, path, file string) { c.checkFile(path, file, false, false) })
		}
	}
	c.checkFolders(ctx)
	for i, d := range c.vm.Spec.Disks {
		switch {
		case d.File != "":
			c.inTime(ctx, fmt.Sprintf("spec.disks[%d].file", i), d.File, func(c *check, path, file string) { c.checkFile(path, file, true, !d.ReadOnly) })
		case d.NBD != nil && d.NBD.Unix != "":
			c.inTime(ctx, fmt.Sprintf("spec.disks[%d].nbd", i), d.NBD.Unix, (*check).checkSocket)
		}
	}
}

// checkFolders checks the folders that are shared.
func (c *check) checkFolders(ctx context.Context) {
	for i := range c.vm.Spec.Filesystems {
		f := &c.vm.Spec.Filesystems[i]
		c.inTime(ctx, fmt.Sprintf("spec.filesystems[%d].path", i), f.Path, func(c *check, path, folder string) { c.checkFolder(path, folder, !f.ReadOnly) })
	}
}

// inTime checks one file that is named at a path of the manifest, and finds that its file
// system hangs if it does. What is looked for then may go on by itself.
func (c *check) inTime(ctx context.Context, path, file string, look func(c *check, path, file string)) {
	findings, err := slowfs.Ask(ctx, c.files, file, func() ([]Finding, error) {
		alone := &check{vm: c.vm, account: c.account, files: c.files}
		look(alone, path, file)
		return alone.findings, nil
	})
	if errors.Is(err, slowfs.ErrHung) {
		c.find(path, err.Error(), hungHint)
	}
	c.findings = append(c.findings, findings...)
}

// hungHint is the remedy for a file system that does not answer.
const hungHint = "see whether the server of that file system can be reached, or allow more time with --timeouts file=DURATION"

// checkFile checks one file. A disk may be a block device too.
func (c *check) checkFile(path, file string, disk, write bool) {
	info, err := c.files.Lookup(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.find(path, file+" does not exist", "relative paths begin at the manifest's folder; create the file or correct the path")
		return
	case err != nil:
		c.find(path, fmt.Sprintf("%s cannot be looked at: %v", file, err), "check the permissions of its folders")
		return
	}
	if info.IsDir() {
		c.find(path, file+" is a folder", "name a file in it")
		return
	}
	block := info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0
	if disk && block != disks.IsDevicePath(file) {
		c.findDevice(path, file, block)
		return
	}
	if !info.Mode().IsRegular() && (!disk || !block) {
		c.find(path, fmt.Sprintf("%s is no file (%s)", file, info.Mode().Type()), "name a file")
		return
	}
	mode, verb := uint32(unix.R_OK), "read"
	if write {
		mode, verb = unix.R_OK|unix.W_OK, "read and written"
	}
	if err := c.account.access(file, mode); err != nil {
		hint := "change the file's permissions, or run maqet as a user who may"
		if a := c.account; a != nil {
			verb += " by the user " + a.name
			hint = "change the permissions of the file and of the folders above it, or name another user in spec.emulator.runAs"
		}
		if write {
			hint += "; a disk that is only read is readOnly: true"
		}
		c.find(path, fmt.Sprintf("%s cannot be %s: %v", file, verb, err), hint)
	}
}

// findDevice tells of a device that is named like a file, or the other way round.
func (c *check) findDevice(path, file string, block bool) {
	if block {
		c.find(path, file+" is a block device", "name it by its path below /dev")
		return
	}
	c.find(path, file+" is no block device", "below /dev only block devices can be disks; keep image files elsewhere")
}

// checkSocket checks the socket of a server.
func (c *check) checkSocket(path, socket string) {
	info, err := c.files.Lookup(socket)
	switch {
	case err != nil:
		c.find(path, fmt.Sprintf("the socket %s cannot be looked at: %v", socket, bare(err)), "start the server, or correct the path")
	case info.Mode()&fs.ModeSocket == 0:
		c.find(path, fmt.Sprintf("%s is no socket (%s)", socket, info.Mode().Type()), "name the socket that the server listens on")
	default:
		// Whoever connects needs the right to write.
		if err := c.account.access(socket, unix.W_OK); err != nil {
			c.find(path, fmt.Sprintf("%s cannot be connected to: %v", socket, err), "change the socket's permissions, or the user that QEMU runs as")
		}
	}
}

// checkFolder checks a folder that is shared with the guest.
func (c *check) checkFolder(path, folder string, write bool) {
	info, err := c.files.Lookup(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.find(path, folder+" does not exist", "relative paths begin at the manifest's folder; make the folder or correct the path")
		return
	case err != nil:
		c.find(path, fmt.Sprintf("%s cannot be looked at: %v", folder, bare(err)), "check the permissions of its folders")
		return
	case !info.IsDir():
		c.find(path, folder+" is no folder", "name the folder that it is in; single files cannot be shared")
		return
	}
	mode, verb := uint32(unix.R_OK|unix.X_OK), "read"
	if write {
		mode, verb = mode|unix.W_OK, "read and written"
	}
	if err := c.account.access(folder, mode); err != nil {
		hint := "change the folder's permissions, or run maqet as a user who may"
		if a := c.account; a != nil {
			verb += " by the user " + a.name
			hint = "change the permissions of the folder and of those above it, or name another user in spec.emulator.runAs"
		}
		if write {
			hint += "; a folder that is only read is readOnly: true"
		}
		c.find(path, fmt.Sprintf("%s cannot be %s: %v", folder, verb, err), hint)
	}
}
