package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
)

func newSnapshotClone(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "clone VM NAME NEW",
		Short: "Make a new machine out of a snapshot",
		Long: `Make a new machine out of a snapshot: its disks, as copies of the snapshot's, and an
identity of its own (uuid and addresses). The machine may run meanwhile, and goes on
undisturbed. A disk that reads from an Image reads from the same one in the new
machine; others are complete copies.

The manifest of the new machine is printed, for you to keep with the others and to
apply: maqet writes to no folder of manifests. It is what was applied of the old
machine, without what only one of two machines may have: fixed MAC addresses, port
forwards, files that the guest writes to. Each difference is told on stderr.

The guest itself does not know that it was cloned. With cloudInit it provisions at its
first start as a new machine; without, it has the old one's host name, machine-id, SSH
host keys and static addresses until somebody changes them.`,
		Example: `  maqet snapshot clone web before-upgrade web2 > vms/web2.yaml
  maqet apply -f vms/`,
		Args: exactArgs("a machine", "a snapshot", "the name of the new machine"), ValidArgsFunction: completeSnapshots(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			vm, tag, err := snapshotArgs(args[:2])
			if err != nil {
				return err
			}
			name, err := machineName(args[2])
			if err != nil {
				return err
			}
			p := newProgress(a)
			engine, err := a.engine(p.report)
			if err != nil {
				return err
			}
			made, err := engine.CloneSnapshot(cmd.Context(), reconcile.CloneRequest{
				VM: vm, Name: tag, New: name, Told: p.percent("vm/"+vm, "cloning snapshot "+tag+" to "+name),
			})
			p.stop()
			if err != nil {
				return err
			}
			for _, note := range made.Notes {
				fmt.Fprintln(a.env.err, note)
			}
			fmt.Fprintf(a.env.err, "vm/%s is made of snapshot %s of %s, with the uuid %s; apply the manifest on standard output to have it run\n", name, tag, vm, made.UID)
			return format{kind: "yaml"}.write(a.env.out, made.VM)
		},
	}
}

func newSnapshotExport(a *app) *cobra.Command {
	var (
		to, kind string
		disks    []string
		compress bool
		out      outputFlag
	)
	cmd := &cobra.Command{
		Use:   "export VM NAME --to {FOLDER | FILE}",
		Short: "Write the disks of a snapshot into files",
		Long: `Write the disks of a snapshot into files that are complete in themselves: they read
from no other file. The machine may run meanwhile, and goes on undisturbed.

Into a folder that is there, each disk becomes VM.NAME.DISK.qcow2, or .raw; the NVRAM of
UEFI firmware is one of them. Otherwise --to names the one file to make. The files
appear when all of them are complete, and nothing is overwritten.`,
		Example: `  maqet snapshot export web before-upgrade --to .
  maqet snapshot export web before-upgrade --disk root --format raw --to root.raw`,
		Args: exactArgs("a machine", "a snapshot"), ValidArgsFunction: completeSnapshots(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := out.format()
			if err != nil {
				return err
			}
			vm, tag, err := snapshotArgs(args)
			if err != nil {
				return err
			}
			req, err := exportRequest(vm, tag, to, kind, disks, compress)
			if err != nil {
				return err
			}
			p := newProgress(a)
			engine, err := a.engine(p.report)
			if err != nil {
				return err
			}
			req.Told = p.percent("vm/"+vm, "exporting snapshot "+tag)
			made, err := engine.ExportSnapshot(cmd.Context(), req)
			p.stop()
			switch {
			case err != nil:
				return err
			case f.structured():
				return f.write(a.env.out, made)
			}
			for _, d := range made {
				fmt.Fprintf(a.env.out, "vm/%s disk %s of snapshot %s is in %s (%s, takes %s)\n",
					vm, d.Disk, tag, d.Path, manifest.Quantity(d.Size), byteWords(d.Allocated))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "`PATH` of a folder that is there, or of the one file to make")
	cmd.Flags().StringVar(&kind, "format", string(manifest.FormatQcow2), "`FORMAT` of the files: qcow2 or raw")
	cmd.Flags().StringArrayVar(&disks, "disk", nil, "only this `DISK`; may be given more than once")
	cmd.Flags().BoolVar(&compress, "compress", false, "compress the files; for qcow2 only")
	mustRegister(cmd, "format", cobra.FixedCompletions([]string{"qcow2", "raw"}, cobra.ShellCompDirectiveNoFileComp))
	out.add(cmd, "json", "yaml")
	return cmd
}

// exportRequest reads what is to be exported where.
func exportRequest(vm, tag, to, kind string, disks []string, compress bool) (reconcile.ExportRequest, error) {
	req := reconcile.ExportRequest{VM: vm, Name: tag, Disks: disks, Format: manifest.DiskFormat(kind), Compress: compress}
	switch {
	case to == "":
		return req, usagef("say where to export to with --to: a folder, or a file for one disk")
	case req.Format != manifest.FormatQcow2 && req.Format != manifest.FormatRaw:
		return req, usagef("--format %s: may be qcow2 or raw", kind)
	case compress && req.Format != manifest.FormatQcow2:
		return req, usagef("--compress: a raw file cannot be compressed; leave it out, or use --format qcow2")
	}
	path, err := filepath.Abs(to)
	if err != nil {
		return req, usagef("--to %s: %w", to, err)
	}
	req.To = path
	info, err := os.Stat(path)
	req.Folder = err == nil && info.IsDir()
	if strings.HasSuffix(to, "/") && !req.Folder {
		return req, usagef("--to %s: there is no such folder; make it first", to)
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil && !req.Folder {
		return req, usagef("--to %s: %w; make the folder first", to, err)
	}
	return req, nil
}

// percent begins something and returns what to tell how far it is.
func (p *progress) percent(subject, message string) func(percent float64) {
	var now atomic.Int64
	p.begin(subject, message)
	p.measure(subject, func() string { return fmt.Sprintf("%d%%", now.Load()) })
	return func(percent float64) { now.Store(int64(percent)) }
}
