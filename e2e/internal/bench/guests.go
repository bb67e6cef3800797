package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// guestName is the machine of the cases that need a guest which has booted.
const guestName = "guest"

// linux is a machine in which the tiny guest boots, as people would write it.
const linux = `apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata:
  name: ` + guestName + `
spec:
  emulator: {binary: ` + Emulator + `}
  machine: {type: q35}
  memory: {size: 256Mi}
  boot: {kernel: {image: %q, initrd: %q, cmdline: "console=ttyS0 quiet"}}
  disks:
    - {name: ` + diskName + `, size: ` + diskSize + `}
  serial: {log: true}
  readiness: {serial: {match: "maqet-guest ready"}, timeout: 2m}
`

const (
	// ready is what the tiny guest says when it has booted.
	ready = "maqet-guest ready"
	// booting is how long it may take to do so, and to do what it is told.
	booting = 2 * time.Minute
	// touched is how much of its memory the guest fills with what cannot be
	// compressed, in MiB.
	touched = 96
)

// guests is a site with one guest that has booted, and its raw twin, which has too.
type guests struct {
	*site
	twin twin
}

// openGuests boots both, and has both fill memory if asked to. Keys are added to the spec.
func openGuests(ctx context.Context, lab *Lab, name string, touch bool, keys ...string) (*guests, error) {
	kernel, initrd := filepath.Join(lab.Guest, "vmlinuz"), filepath.Join(lab.Guest, "initrd.img")
	for _, path := range []string{kernel, initrd} {
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("%w: no guest to boot (%w); make it with: make guest", ErrSkip, err)
		}
	}
	s, err := lab.site(name)
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf(linux, kernel, initrd) + strings.Join(keys, "")
	if err := s.write([]string{guestName}, func(int, string) string { return text }); err != nil {
		return nil, err
	}
	if err := s.maqet(ctx, "apply", "-f", s.manifests, "--owner", owner, "--wait"); err != nil {
		return nil, err
	}
	twins, err := s.twins(ctx)
	if err != nil {
		return nil, err
	}
	g := &guests{site: s, twin: twins[0]}
	err = g.boot(ctx)
	if err == nil && touch {
		err = g.touch(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%w; %w", err, s.close(ctx))
	}
	return g, nil
}

// boot starts the twin and waits for its guest.
func (g *guests) boot(ctx context.Context) error {
	if err := g.makeDisk(ctx, g.twin); err != nil {
		return err
	}
	script, err := g.script(g.twin, false)
	if err != nil {
		return err
	}
	if err := g.lab.run(ctx, nil, script); err != nil {
		return err
	}
	return awaitLog(ctx, filepath.Join(g.raw, "s", "logs", guestName, "serial.log"), time.Now().Add(booting))
}

// awaitLog waits until the guest that writes this serial log has booted.
func awaitLog(ctx context.Context, log string, deadline time.Time) error {
	for ; ; time.Sleep(50 * time.Millisecond) {
		text, err := os.ReadFile(log)
		if err == nil && strings.Contains(string(text), ready) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the guest that writes %s has not booted within %s: %w", log, booting, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// touch fills memory of both guests.
func (g *guests) touch(ctx context.Context) error {
	what := fmt.Sprintf("dd if=/dev/urandom of=/tmp/touched bs=1M count=%d", touched)
	return errors.Join(tell(ctx, g.ourSerial(), what), tell(ctx, g.rawSerial(), what))
}

// ourSerial and rawSerial are the sockets of the guests' serial lines.
func (g *guests) ourSerial() string { return g.layout.SerialSocket(guestName) }

func (g *guests) rawSerial() string { return filepath.Join(filepath.Dir(g.twin.Socket), "serial.sock") }

// tell has a guest's shell do something, and waits until it has.
func tell(ctx context.Context, socket, what string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(booting)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(conn, what); err != nil {
		return err
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if code, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "[exit "); ok {
			if code != "0]" {
				return fmt.Errorf("the guest at %s: %s: exit %s", socket, what, code)
			}
			return nil
		}
	}
	return fmt.Errorf("the guest at %s: %s: no answer: %w", socket, what, lines.Err())
}

// job has the twin's QEMU do QMP commands in turn, and returns what the client prints.
func (g *guests) job(ctx context.Context, commands ...qmpCommand) (string, error) {
	text, err := json.Marshal(commands)
	if err != nil {
		return "", fmt.Errorf("write QMP commands: %w", err)
	}
	file := filepath.Join(g.raw, "commands.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return "", fmt.Errorf("write QMP commands: %w", err)
	}
	if err := g.rawclient(ctx, "jobs", "-f", file, g.twin.Socket); err != nil {
		return "", err
	}
	out, err := os.ReadFile(filepath.Join(g.lab.dir, "output"))
	return string(out), err
}

// qmpCommand is a QMP command.
type qmpCommand struct {
	Execute   string         `json:"execute"`
	Arguments map[string]any `json:"arguments,omitempty"`
}

// snapshotJob is one of QEMU's three jobs about snapshots with memory.
func snapshotJob(kind, tag string) qmpCommand {
	args := map[string]any{"job-id": "raw", "tag": tag, "devices": []string{diskName}}
	if kind != "snapshot-delete" {
		args["vmstate"] = diskName
	}
	return qmpCommand{Execute: kind, Arguments: args}
}
