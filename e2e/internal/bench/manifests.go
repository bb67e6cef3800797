package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Emulator is the binary of every machine here.
const Emulator = "qemu-system-x86_64"

// board is the machine that all cases have: a q35 with QEMU's own default for
// everything else but memory. Its firmware finds nothing to boot and idles.
const board = `apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata:
  name: %s
spec:
  emulator: {binary: ` + Emulator + `}
  machine: {type: q35}
  memory: {size: 64Mi}
`

// withDisk is what a machine with a disk has besides.
const withDisk = `  disks:
    - {name: ` + diskName + `, size: ` + diskSize + `}
`

const (
	diskName = "root"
	diskSize = "1Gi"
	// rawDiskSize is the same for qemu-img.
	rawDiskSize = "1G"
)

// full is a manifest as people write them: most keys used.
const full = `apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata:
  name: %[1]s
  labels: {tier: front}
spec:
  emulator: {binary: ` + Emulator + `}
  machine: {type: q35, hotplugPorts: 2}
  cpu: {count: 2}
  memory: {size: 512Mi}
  boot: {order: [root, lan]}
  disks:
    - {name: root, size: 20Gi}
    - {name: data, size: 100Gi}
  nics:
    - {name: lan, model: virtio-net-pci, user: {forward: ["tcp:127.0.0.1:%[2]d:22"]}}
  serial: {log: true}
  devices:
    - {name: rng0, driver: virtio-rng-pci, properties: {max-bytes: 1024}}
  shutdown: {timeout: 60s}
  readiness: {tcp: {port: 22}, timeout: 120s}
`

// write writes one manifest for each name.
func (s *site) write(names []string, text func(i int, name string) string) error {
	s.names = names
	for i, name := range names {
		path := filepath.Join(s.manifests, name+".yaml")
		if err := os.WriteFile(path, []byte(text(i, name)), 0o600); err != nil {
			return fmt.Errorf("write a manifest: %w", err)
		}
	}
	return nil
}

// boards writes n machines, with a disk each or without.
func (s *site) boards(n int, disk bool) error {
	return s.write(names(n), func(_ int, name string) string {
		text := fmt.Sprintf(board, name)
		if disk {
			text += withDisk
		}
		return text
	})
}

// stopped writes the site's manifests once more, to say that the machines are to
// be stopped, into a folder of their own.
func (s *site) stopped() (string, error) {
	down := filepath.Join(filepath.Dir(s.manifests), "down")
	if err := os.MkdirAll(down, 0o700); err != nil {
		return "", fmt.Errorf("make a folder for manifests: %w", err)
	}
	for _, name := range s.names {
		text, err := os.ReadFile(filepath.Join(s.manifests, name+".yaml"))
		if err != nil {
			return "", fmt.Errorf("read a manifest: %w", err)
		}
		text = append(text, "  powerState: Stopped\n"...)
		if err := os.WriteFile(filepath.Join(down, name+".yaml"), text, 0o600); err != nil { //nolint:gosec // A folder of the benchmarks' own.
			return "", fmt.Errorf("write a manifest: %w", err)
		}
	}
	return down, nil
}

// fulls writes n manifests that use most keys.
func (s *site) fulls(n int) error {
	const firstPort = 10000
	return s.write(names(n), func(i int, name string) string {
		return fmt.Sprintf(full, name, firstPort+i)
	})
}

// names are n names of machines.
func names(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("vm%04d", i+1)
	}
	return list
}

// plural is "1 machine" and "50 machines".
func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %s", n, strings.TrimSuffix(word, "s")+"s")
}
