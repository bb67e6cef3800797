package machinemodel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/driver/qemu"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/e2e/internal/host"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/reconcile/hosttest"
)

// TestHost_realQEMU_playsTheScript holds QEMU, by the driver, to the script that the
// simulated host of the controller's tests is held to as well.
func TestHost_realQEMU_playsTheScript(t *testing.T) {
	boot := filepath.Join(t.TempDir(), "boot.raw")
	if err := os.WriteFile(boot, hosttest.GuestImage(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, scene := range hosttest.Script() {
		t.Run(scene.Name, func(t *testing.T) {
			t.Parallel()
			scene.Run(t, newRealHost(t, boot))
		})
	}
}

// realHost is the driver on folders of its own, and the hands of others.
type realHost struct {
	*qemu.Driver
	layout layout.Layout
	boot   string
	qemus  *host.Host
}

func newRealHost(t *testing.T, boot string) *realHost {
	t.Helper()
	h := host.New(t, "")
	where := layout.Layout{State: h.State, Run: h.Run}
	table := timing.Default()
	// A frozen QEMU is waited for so long at each order and look.
	table.Greeting, table.Query = 2*time.Second, 2*time.Second
	locks, images := filelock.New(), disk.New(disk.Config{Timing: table})
	return &realHost{layout: where, boot: boot, qemus: h, Driver: qemu.New(qemu.Config{
		Layout: where, Timing: table, Locks: locks, Prober: qemu.NewProber(where, table, locks),
		Images: images, Kinds: disk.Kinds{disk.Made{Images: images}, disk.File{Images: images}}, Who: "script",
	})}
}

func (h *realHost) BootDisk() string { return h.boot }

// Monitor sends a command at maqet's own socket, which QEMU does not tell apart.
func (h *realHost) Monitor(ctx context.Context, command string) error {
	command, words, _ := strings.Cut(command, " ")
	args := map[string]any{}
	for word := range strings.FieldsSeq(words) {
		name, value, _ := strings.Cut(word, "=")
		args[name] = value
	}
	return h.send(ctx, command, args)
}

func (h *realHost) send(ctx context.Context, command string, args map[string]any) error {
	err := h.Visit(ctx, hosttest.Name, func(ctx context.Context, c *qmp.Conn) error { return c.Do(ctx, command, args, nil) })
	if errors.Is(err, qmp.ErrClosed) {
		return nil // It ended before the answer was read.
	}
	return err
}

// Guest presses the key that the guest listens to.
func (h *realHost) Guest(ctx context.Context, does hosttest.Guest) error {
	key := map[string]any{"type": "qcode", "data": string(does)}
	err := h.send(ctx, "send-key", map[string]any{"keys": []any{key}})
	for err == nil && does == hosttest.GuestGoesDeaf {
		// Nothing else shows that the guest has read the key: it sets bl.
		var registers string
		err = h.Visit(ctx, hosttest.Name, func(ctx context.Context, c *qmp.Conn) error {
			return c.Do(ctx, "human-monitor-command", map[string]any{"command-line": "info registers"}, &registers)
		})
		if deaf.MatchString(registers) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
	}
	return err
}

// deaf is what QEMU shows of a guest's registers once it is.
var deaf = regexp.MustCompile(`EBX=[0-9a-f]{6}01 `)

func (h *realHost) pid() (int, error) {
	pids := h.qemus.QEMUs()[hosttest.Name]
	if len(pids) != 1 {
		return 0, fmt.Errorf("the machine has the processes %v", pids)
	}
	return pids[0], nil
}

func (h *realHost) Signal(_ context.Context, signal syscall.Signal) error {
	pid, err := h.pid()
	if err != nil {
		return err
	}
	return syscall.Kill(pid, signal)
}

func (h *realHost) LoseSockets(context.Context) error {
	return errors.Join(os.Remove(h.layout.CLISocket(hosttest.Name)), os.Remove(h.layout.QMPSocket(hosttest.Name)))
}

// Reboot kills QEMU and gives its launch record the id of another boot.
func (h *realHost) Reboot(ctx context.Context) error {
	if err := h.Signal(ctx, syscall.SIGKILL); err != nil {
		return err
	}
	if !host.Eventually(host.Settle, func() bool { return len(h.qemus.QEMUs()) == 0 }) {
		return errors.New("QEMU did not end")
	}
	path := h.layout.Launched(hosttest.Name)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var record driver.Launched
	if err := json.Unmarshal(text, &record); err != nil {
		return err
	}
	record.BootID = "another"
	if text, err = json.Marshal(record); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// Passes gives QEMU and its guest half a second. On a computer that is busy that may
// be too little for something wrong to be seen, which then goes unnoticed once.
func (h *realHost) Passes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second/2)
	defer cancel()
	<-ctx.Done()
}
