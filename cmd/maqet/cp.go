package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/driver/qemu"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// defaultMode is what only its owner may read.
const defaultMode fs.FileMode = 0o600

// standard is standard input or output in the place of a local file.
const standard = "-"

// copyFlags are the flags of cp.
type copyFlags struct {
	mode    string
	inPlace bool
}

func newCopy(a *app) *cobra.Command {
	var flags copyFlags
	cmd := &cobra.Command{
		Use:   "cp {LOCAL VM:PATH | VM:PATH LOCAL}",
		Short: "Copy a file into a guest or out of it",
		Long: `Copy one file into a guest or out of it by the guest's agent, as the agent's user,
which is root as a rule. The machine needs guestAgent: {}, and its guest
qemu-guest-agent. A path in a guest is absolute. A target that ends with a slash, or
is a folder here, is where the file is put under its own name. As LOCAL - is standard
input or output.

A file appears under its name when it is whole, with the mode 0600 or that of --mode;
one that was there is replaced, not written into. In the guest that takes a shell;
with --in-place it is written straight into its place with the mode that the agent
gives it, and is there in part after a failure. Owner and times are not copied.
Whether the guest has it on its disk is the guest's own affair.

Symbolic links are followed at the source, and refused as the target, since the file
would take the place of the link. Folders are refused; tar carries up to 16 MiB of them:
maqet exec VM -- tar -C /etc -c ssh | tar x. A local file whose name has a colon is
written ./NAME.`,
		Example: `  maqet cp app.conf web:/etc/app.conf
  maqet cp --mode 0755 deploy.sh web:/usr/local/bin/
  maqet cp web:/var/log/syslog .
  maqet cp web:/etc/passwd - | grep root`,
		Args:              exactArgs("a source", "a target"),
		ValidArgsFunction: completeCopy(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runCopy(cmd.Context(), a, args[0], args[1], flags)
		},
	}
	cmd.Flags().StringVar(&flags.mode, "mode", "0600", "mode of the new file, in octal (`MODE`)")
	cmd.Flags().BoolVar(&flags.inPlace, "in-place", false, "write straight into the file in the guest, which then needs no shell")
	return cmd
}

// completeCopy completes machines, with their colon, and leaves files to the shell.
func completeCopy(a *app) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= 2 || strings.ContainsAny(prefix, ":/") {
			return nil, cobra.ShellCompDirectiveDefault
		}
		names, directive := remembered(cmd.Context(), a, func(tx *state.Tx) ([]string, error) {
			machines, err := tx.Machines()
			var names []string
			for _, m := range machines {
				names = append(names, m.Object.Metadata.Name+":")
			}
			return names, err
		}, nil, prefix)
		return names, directive&^cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}

// place is one end of a copy: a local path, or one in a guest.
type place struct{ vm, path string }

// placeOf reads VM:PATH, or a local path. What has a slash before the colon is local.
func placeOf(text string) (place, error) {
	vm, rest, ok := strings.Cut(text, ":")
	if !ok || strings.Contains(vm, "/") {
		if text == "" {
			return place{}, usagef("a path is empty")
		}
		return place{path: text}, nil
	}
	if err := manifest.ValidMachineName(vm); err != nil {
		return place{}, usagef("%s: %q is no machine; write a local file with a colon in its name as ./%s", text, vm, text)
	}
	windows := len(rest) > 2 && rest[1] == ':' || strings.HasPrefix(rest, `\\`)
	if !strings.HasPrefix(rest, "/") && !windows {
		return place{}, usagef("%s: the path in the guest must be absolute", text)
	}
	return place{vm, rest}, nil
}

func runCopy(ctx context.Context, a *app, from, to string, flags copyFlags) error {
	source, err := placeOf(from)
	if err != nil {
		return err
	}
	target, err := placeOf(to)
	if err != nil {
		return err
	}
	if (source.vm == "") == (target.vm == "") {
		return usagef("cp %s %s: just one of them must be VM:PATH", from, to)
	}
	mode, err := strconv.ParseUint(flags.mode, 8, 32)
	if err != nil || mode == 0 || mode > 0o777 {
		return usagef("--mode %s: must be octal, from 0001 to 0777", flags.mode)
	}
	c := &copying{a: a, mode: fs.FileMode(mode), inPlace: flags.inPlace}
	if c.rooms, err = a.rooms(); err != nil {
		return err
	}
	if err := mustKnow(ctx, a, []string{source.vm + target.vm}, "cp"); err != nil {
		return err
	}
	if target.vm != "" {
		err = c.in(ctx, source.path, target)
	} else {
		err = c.out(ctx, source, target.path)
	}
	if err != nil {
		return fmt.Errorf("cp %s %s: %w", from, to, err)
	}
	return nil
}

// copying is one copy.
type copying struct {
	a       *app
	rooms   *rooms
	mode    fs.FileMode
	inPlace bool
	done    atomic.Int64
}

// show tells a person how far it is, of so many bytes; 0 is an unknown number.
func (c *copying) show(vm, what string, whole int64) (stop func()) {
	p := newProgress(c.a)
	subject := "vm/" + vm
	p.begin(subject, "copying "+what)
	p.measure(subject, func() string {
		const mega = 1 << 20
		text := fmt.Sprintf("%.1f MiB", float64(c.done.Load())/mega)
		if whole > 0 {
			text += fmt.Sprintf(" of %.1f MiB", float64(whole)/mega)
		}
		return text
	})
	return p.stop
}

// in copies a local file into a guest.
func (c *copying) in(ctx context.Context, local string, target place) error {
	source, size, err := c.open(ctx, local, target)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }() // it was only read
	if strings.HasSuffix(target.path, "/") {
		target.path += filepath.Base(local)
	}
	stop := c.show(target.vm, local, size)
	err = c.rooms.driver.CopyIn(ctx, target.vm, qemu.CopyRequest{
		Path: target.path, Mode: c.mode, InPlace: c.inPlace, Source: source, Copied: c.done.Store,
	})
	stop()
	if err == nil {
		announce(c.a.env, target.vm, "has %s (%d bytes)", target.path, c.done.Load())
	}
	return err
}

// open opens what is to be copied into a guest; size is 0 when nobody knows it.
func (c *copying) open(ctx context.Context, local string, target place) (source io.ReadCloser, size int64, err error) {
	if local == standard {
		if strings.HasSuffix(target.path, "/") {
			return nil, 0, usagef("what is read from standard input has no name; give the path in the guest in full, not just %s", target.path)
		}
		return standardInput(ctx, c.a.env.in), 0, nil
	}
	info, err := os.Stat(local)
	switch {
	case err != nil:
		return nil, 0, err
	case info.IsDir():
		return nil, 0, usagef("%s is a folder; copy files one by one, or pack it: tar -c %s | maqet exec -i %s -- tar -C / -x", local, local, target.vm)
	case !info.Mode().IsRegular():
		return nil, 0, usagef("%s is no regular file; give it as standard input: maqet cp - %s:%s <%s", local, target.vm, target.path, local)
	}
	f, err := os.Open(local) //nolint:gosec // the file that a person names
	return f, info.Size(), err
}

// standardInput is a stream that ends with ctx, however long its next byte takes.
func standardInput(ctx context.Context, in io.Reader) io.ReadCloser {
	r, w := io.Pipe()
	stop := context.AfterFunc(ctx, func() { _ = w.CloseWithError(ctx.Err()) })
	go func() {
		defer stop()
		_, err := io.Copy(w, in)
		_ = w.CloseWithError(err) // nil is the end of the stream
	}()
	return r
}

// out copies a file out of a guest. It appears under its name when it is whole.
func (c *copying) out(ctx context.Context, source place, local string) error {
	if local == standard {
		stop := c.show(source.vm, source.path, 0)
		err := c.rooms.driver.CopyOut(ctx, source.vm, source.path, c.a.env.out, c.done.Store)
		stop()
		return err
	}
	if info, err := os.Stat(local); strings.HasSuffix(local, "/") || err == nil && info.IsDir() {
		local = filepath.Join(local, path.Base(strings.ReplaceAll(source.path, `\`, "/")))
	}
	if err := replaceable(local); err != nil {
		return err
	}
	temp := filepath.Join(filepath.Dir(local), ".maqet-"+rand.Text()+".tmp")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, defaultMode) //nolint:gosec // beside the file that a person names
	if err != nil {
		return err
	}
	stop := c.show(source.vm, source.path, 0)
	err = c.rooms.driver.CopyOut(ctx, source.vm, source.path, f, c.done.Store)
	stop()
	if err = errors.Join(err, c.finish(f, err == nil)); err == nil {
		err = os.Rename(temp, local)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	announce(c.a.env, source.vm, "gave %s as %s (%d bytes)", source.path, local, c.done.Load())
	return nil
}

// replaceable tells why a file must not take the place of what is there.
func replaceable(local string) error {
	info, err := os.Lstat(local)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return usagef("%s is a folder, which a file does not replace; name the file otherwise", local)
	case info.Mode()&fs.ModeSymlink != 0:
		return usagef("%s is a symbolic link, which the file would replace; name the file that it leads to", local)
	case !info.Mode().IsRegular():
		return usagef("%s is no regular file, and the copy would replace it; write to standard output instead, which is -", local)
	default:
		return nil
	}
}

// finish closes a file, whole or not, and gives a whole one its mode.
func (c *copying) finish(f *os.File, whole bool) error {
	if !whole {
		return f.Close()
	}
	return errors.Join(f.Chmod(c.mode), f.Sync(), f.Close())
}
