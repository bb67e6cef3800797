package manifest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// typicalMachine is about as long as people's manifests are.
const typicalMachine = `apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata:
  name: vm-%[1]d
  labels: {tier: front, app: web}
spec:
  powerState: Running
  machine: {type: q35}
  cpu: {model: max, count: 2}
  memory: {size: 512Mi}
  boot: {order: [root, lan]}
  disks:
    - {name: root, size: 20Gi, bus: virtio}
    - {name: shared, file: /srv/shared-%[1]d.raw, format: raw}
    - {name: iso, file: ./installer.iso, media: cdrom}
  nics:
    - {name: lan, user: {forward: ["tcp:127.0.0.1:%[2]d:22"]}}
    - {name: dmz, bridge: {name: br0}}
  serial: {log: true}
  devices: [{name: rng0, driver: virtio-rng-pci, properties: {max-bytes: 1024}}]
  shutdown: {methods: [ACPI], timeout: 60s}
  readiness: {tcp: {port: 22}, timeout: 120s}
`

func BenchmarkLoad_2000(b *testing.B) {
	dir := b.TempDir()
	for i := range 2000 {
		text := fmt.Sprintf(typicalMachine, i, 20000+i)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("vm-%d.yaml", i)), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		set, err := Load(context.Background(), []string{dir}, LoadOptions{})
		if err != nil || len(set.Objects) != 2000 {
			b.Fatal(err)
		}
		if faults := Admit(set.Objects, nil, HostFacts{}); len(faults) > 0 {
			b.Fatal(faults)
		}
	}
}
