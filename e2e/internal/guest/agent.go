package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"

	"github.com/maqet/maqet/internal/filelock"
)

// AgentSwitch is the part of the kernel command line that starts the agent; it is in
// the Cmdline of what [AgentPath] returns.
const AgentSwitch = "rdinit=/init-agent"

//go:embed agentfs
var agentfs embed.FS

// agentFolders are the folders that only the guest with the agent has, parents first.
var agentFolders = []string{"usr", "usr/sbin", "usr/bin", "lib64", "lib/x86_64-linux-gnu"}

// AgentPath returns the tiny guest with Debian's qemu-guest-agent in it, built like
// [Path] does. It listens on the port org.qemu.guest_agent.0 as soon as the machine
// has one. Switches besides those of the tiny guest:
//
//	maqet.noagent         no agent is started
//	maqet.agentdelay=S    it is started S seconds late
//	maqet.noshutdown      powering off through the agent fails
//	maqet.slowshutdown    powering off through the agent is accepted and never happens
func AgentPath(t testing.TB) Guest {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	g, err := BuildAgent(ctx, filepath.Join(root, "build", "guest"))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// BuildAgent makes the guest with the agent from the one in dir, which is built when
// needed, in the folder "agent" below it. The kernel unpacks several archives one
// after the other, so the initrd is the tiny guest's own with another behind it.
func BuildAgent(ctx context.Context, dir string) (g Guest, err error) {
	base, err := Build(ctx, dir, Cloud())
	if err != nil {
		return Guest{}, err
	}
	dir = filepath.Join(filepath.Dir(base.Kernel), "agent")
	g = base
	g.Initrd, g.Cmdline = filepath.Join(dir, initrdName), base.Cmdline+" "+AgentSwitch
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return Guest{}, fmt.Errorf("guest with agent: %w", err)
	}
	lock, err := filelock.New().Lock(ctx, filepath.Join(dir, ".lock"))
	if err != nil {
		return Guest{}, fmt.Errorf("guest with agent: wait for another build in %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	stamp := filepath.Join(dir, "stamp")
	want, err := agentRecipe(base)
	if err != nil {
		return Guest{}, fmt.Errorf("guest with agent: %w", err)
	}
	if have, err := os.ReadFile(stamp); err == nil && string(have) == want {
		return g, nil
	}
	if err := buildAgent(ctx, dir, base); err != nil {
		return Guest{}, fmt.Errorf("guest with agent in %s: %w", dir, err)
	}
	return g, os.WriteFile(stamp, []byte(want), 0o600)
}

// agentRecipe identifies everything that decides what the guest with the agent is.
func agentRecipe(base Guest) (string, error) {
	sum := sha256.New()
	basis, err := fileSum(base.Initrd)
	if err != nil {
		return "", err
	}
	fmt.Fprintln(sum, "1", basis, agentFolders)
	err = fs.WalkDir(agentfs, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := agentfs.ReadFile(path)
		fmt.Fprintf(sum, "%s %d\n%s", path, len(data), data)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil)), err
}

// buildAgent packs the agent and what it needs behind the tiny guest's archive.
func buildAgent(ctx context.Context, dir string, base Guest) (err error) {
	scratch, err := os.MkdirTemp(dir, ".work-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	tree, err := fetchAgent(ctx, filepath.Join(dir, "packages"), scratch)
	if err != nil {
		return err
	}
	libraries, err := tree.libraries("usr/sbin/qemu-ga")
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	a := &archive{w: cpio.NewWriter(&buf)}
	for _, folder := range agentFolders {
		a.add(folder, cpio.TypeDir|0o755, nil)
	}
	a.addFile("usr/sbin/qemu-ga", 0o755, filepath.Join(tree.dir, "usr/sbin/qemu-ga"))
	for name, file := range libraries {
		a.addFile(name, 0o755, file)
	}
	if err := a.addTree(agentfs, "agentfs"); err != nil {
		return err
	}
	if err := a.close(); err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	initrd, err := os.ReadFile(base.Initrd)
	if err != nil {
		return err
	}
	// The next archive begins at a multiple of four bytes.
	initrd = append(initrd, make([]byte, (4-len(initrd)%4)%4)...)
	whole := filepath.Join(scratch, initrdName)
	if err := os.WriteFile(whole, append(initrd, buf.Bytes()...), 0o600); err != nil { //nolint:gosec // a folder made above
		return err
	}
	return os.Rename(whole, filepath.Join(dir, initrdName))
}

// addTree adds all files of an embedded folder.
func (a *archive) addTree(from embed.FS, folder string) error {
	return fs.WalkDir(from, folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := from.ReadFile(path)
		if err != nil {
			return err
		}
		a.add(strings.TrimPrefix(path, folder+"/"), cpio.TypeReg|0o755, content)
		return a.err
	})
}
