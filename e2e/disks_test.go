package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
)

// writeVM writes a manifest of the machine box that boots a tiny guest, and returns
// its path. Keys are further lines of its spec.
func writeVM(t testing.TB, dir string, g guest.Guest, keys string) string {
	t.Helper()
	path := filepath.Join(dir, "vm.yaml")
	text := fmt.Sprintf(`apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata: {name: box}
spec:
  emulator: {accelerators: [tcg]}
  memory: {size: 192Mi}
  serial: {log: true}
  shutdown: {timeout: 20s}
  readiness: {serial: {match: "^maqet-guest ready"}, timeout: 5m}
  boot: {kernel: {image: %q, initrd: %q, cmdline: %q}}
%s`, g.Kernel, g.Initrd, g.Cmdline, keys)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// drives are the drives that the guest sees: its name of the device and where that
// is, by size in sectors, since the size is what tells the drives of a test apart.
func drives(s *host.Shell) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(s.Run(`for d in /sys/block/*; do echo $(cat $d/size) $(readlink -f $d); done`)) {
		size, path, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok && !strings.Contains(path, "/virtual/") {
			found[size] = path
		}
	}
	return found
}

// unsteady are the numbers in a path of /sys that the kernel counts up in the order
// in which it finds things, and that are no place.
var unsteady = regexp.MustCompile(`host\d+|target\d+|/\d+:|usb\d+/\d+-|ata\d+|virtio\d+|sd[a-z]+$|vd[a-z]+$|sr\d+$|nvme\d+(n\d+)?`)

func places(s *host.Shell) map[string]string {
	all := drives(s)
	for size, path := range all {
		all[size] = unsteady.ReplaceAllString(path, "*")
	}
	return all
}

// TestDisks_everyBus_theGuestReadsAndWritesThem boots a guest with a disk on each bus
// and checks that it sees them with their size and serial number, that what it writes
// is there again after a restart without the disk in the middle, and that the others
// are where they were.
func TestDisks_everyBus_theGuestReadsAndWritesThem(t *testing.T) {
	t.Parallel()
	const virtio = `
    - {name: vblk, size: 1Mi, serial: V-1}
    - {name: swap, size: 9Mi, serial: W-1}
    - {name: vscsi, size: 2Mi, bus: virtio-scsi, serial: S-1}
    - {name: nvme, size: 3Mi, bus: nvme, serial: N-1}
    - {name: sswap, size: 10Mi, bus: virtio-scsi, serial: T-1}
    - {name: vscsi2, size: 11Mi, bus: virtio-scsi, serial: U-1}`
	const others = `
    - {name: sata, size: 4Mi, bus: sata, serial: A-1}
    - {name: aswap, size: 12Mi, bus: sata}
    - {name: sata2, size: 13Mi, bus: sata}
    - {name: usb, size: 5Mi, bus: usb, serial: B-1}
    - {name: uswap, size: 14Mi, bus: usb}
    - {name: usb2, size: 15Mi, bus: usb}
    - {name: usbiso, file: six.iso, media: cdrom, bus: usb}`
	const cdroms = `
    - {name: iso, file: seven.iso, media: cdrom}
    - {name: tray, media: cdrom}`
	cases := []struct {
		name, board, disks string
		guest              guest.Guest
		// sees is a part of the path of each drive, by size in sectors of 512 bytes.
		sees map[string]string
		// serials are commands that print a serial number.
		serials map[string]string
	}{
		{
			name: "cloudOnPC", board: "pc", guest: guest.Path(t), disks: virtio + cdroms,
			sees: map[string]string{
				"2048": "/block/vd", "18432": "/block/vd", "4096": "/target", "6144": "/nvme/", "20480": "/target", "22528": "/target", "14336": "/block/sr",
			},
			serials: map[string]string{
				"cat /sys/block/vda/serial /sys/block/vdb/serial":                     "V-1W-1",
				"cat /sys/class/nvme/nvme0/serial":                                    "N-1",
				"for d in /sys/block/sd*; do tail -c +5 $d/device/vpd_pg80; done":     "S-1T-1U-1",
				"for d in /sys/block/sr*; do cat $d/removable; done | tr -d '\\n'":    "11",
				"for d in /sys/block/sr*; do cat $d/size; done | sort | tr '\\n' ' '": "14336 2097151 ",
			},
		},
		{
			name: "genericOnQ35", board: "q35", guest: guest.PathOf(t, guest.Generic()), disks: virtio + others + cdroms,
			sees: map[string]string{
				"2048": "/block/vd", "18432": "/block/vd", "4096": "/virtio", "6144": "/nvme/", "20480": "/virtio", "22528": "/virtio",
				"8192": "/ata", "24576": "/ata", "26624": "/ata", "10240": "/usb", "28672": "/usb", "30720": "/usb",
				"12288": "/usb", "14336": "/ata",
			},
			serials: map[string]string{
				"cat /sys/class/nvme/nvme0/serial": "N-1",
				// Linux asks no USB disk for it.
				"for d in /sys/block/sd*; do [ $(cat $d/size) != 8192 ] || tail -c +5 $d/device/vpd_pg80; done": "A-1",
			},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h, dir := host.New(t, binary), t.TempDir()
			for name, size := range map[string]int64{"six.iso": 6 << 20, "seven.iso": 7 << 20} {
				if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(filepath.Join(dir, name), size); err != nil {
					t.Fatal(err)
				}
			}
			manifest := writeVM(t, dir, c.guest, "  machine: {type: "+c.board+"}\n  disks:"+c.disks+"\n")
			h.Must(t, 0, "validate", "--host", "-f", manifest)
			h.Must(t, 0, "apply", "--wait", "-f", manifest)
			h.Must(t, 0, "plan", "-f", manifest)
			s := h.Shell(t, "box")
			awaitDrives(t, s, c.sees)
			for command, want := range c.serials {
				if got := strings.TrimSpace(s.Run(command)); got != strings.TrimSpace(want) {
					t.Errorf("%s printed %q, want %q", command, got, want)
				}
			}
			before := places(s)
			// Each disk gets its own size as its content, somewhere in it.
			s.Run(`for d in /sys/block/[vsn][dv]*; do n=$(cat $d/size); echo "I have $n" | dd of=/dev/${d##*/} bs=512 seek=100 conv=sync 2>/dev/null; done; sync`)
			s.Close()

			// The disks in the middle go.
			gone := regexp.MustCompile(`(?m)^    - \{name: [a-z]?swap,.*\n`)
			writeVM(t, dir, c.guest, "  machine: {type: "+c.board+"}\n  disks:"+gone.ReplaceAllString(c.disks+"\n", ""))
			h.Must(t, 0, "apply", "--wait", "--allow-restart", "-f", manifest)
			s = h.Shell(t, "box")
			want := map[string]string{}
			for size, path := range c.sees {
				switch size {
				case "18432", "20480", "24576", "28672":
					delete(before, size)
				default:
					want[size] = path
				}
			}
			awaitDrives(t, s, want)
			if diff := cmp.Diff(before, places(s)); diff != "" {
				t.Errorf("removing disks moved others (-before +after):\n%s", diff)
			}
			read := s.Run(`for d in /sys/block/[vsn][dv]*; do dd if=/dev/${d##*/} bs=512 skip=100 count=1 2>/dev/null | head -n 1; done`)
			for size := range want {
				if size != "12288" && size != "14336" && !strings.Contains(read+"\n", "I have "+size+"\n") {
					t.Errorf("nothing of what was written to the disk of %s sectors is there: %q", size, read)
				}
			}
		})
	}
}

// awaitDrives waits until the guest has found its drives: USB is slow.
func awaitDrives(t *testing.T, s *host.Shell, want map[string]string) {
	t.Helper()
	var got map[string]string
	found := host.Eventually(host.Settle, func() bool {
		got = drives(s)
		for size, part := range want {
			if !strings.Contains(got[size], part) {
				return false
			}
		}
		return true
	})
	if !found {
		t.Fatalf("the guest sees %v, want %v", got, want)
	}
}

// allocated is what a disk that maqet made takes on the host, in bytes.
func allocated(t *testing.T, h *host.Host, disk string) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(h.State, "disks", "box", disk+".qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no stat_t")
	}
	return stat.Blocks * 512
}

// TestDisks_discardAndZeroes_giveSpaceBackOnlyWhereAsked lets a guest fill, discard
// and zero disks with and without discard and detectZeroes.
func TestDisks_discardAndZeroes_giveSpaceBackOnlyWhereAsked(t *testing.T) {
	t.Parallel()
	h, dir := host.New(t, binary), t.TempDir()
	manifest := writeVM(t, dir, guest.Path(t), `  disks:
    - {name: keep, size: 64Mi, serial: keep, discard: ignore}
    - {name: give, size: 64Mi, serial: give, discard: unmap}
    - {name: zero, size: 64Mi, serial: zero, discard: unmap, detectZeroes: unmap, cache: none, aio: native, ioThread: true}
`)
	h.Must(t, 0, "apply", "--wait", "-f", manifest)
	h.Must(t, 0, "plan", "-f", manifest)
	s := h.Shell(t, "box")
	const full = 16 << 20
	s.Run(`for d in a b c; do dd if=/dev/urandom of=/dev/vd$d bs=1M count=16 2>/dev/null; done; sync`)
	for _, disk := range []string{"keep", "give", "zero"} {
		if got := allocated(t, h, disk); got < full {
			t.Errorf("%s takes %d bytes after 16 MiB were written", disk, got)
		}
	}
	// Zeroes are written to the first and the last; the second is discarded.
	s.Run(`for d in a c; do dd if=/dev/zero of=/dev/vd$d bs=1M count=16 2>/dev/null; done; sync; blkdiscard -l 16777216 /dev/vdb; sync`)
	if got := allocated(t, h, "keep"); got < full {
		t.Errorf("keep gave space back for zeroes: %d bytes are left", got)
	}
	for _, disk := range []string{"give", "zero"} {
		if got := allocated(t, h, disk); got > full/4 {
			t.Errorf("%s takes %d bytes still", disk, got)
		}
	}
	// What the host ignores stays, whatever the guest is told.
	s.Run(`dd if=/dev/urandom of=/dev/vda bs=1M count=16 2>/dev/null; sync; blkdiscard -l 16777216 /dev/vda; sync`)
	if got := allocated(t, h, "keep"); got < full {
		t.Errorf("keep gave discarded space back: %d bytes are left", got)
	}
}

// TestDisks_example_runsAndStaysAsItIs applies the example of disks, twice.
func TestDisks_example_runsAndStaysAsItIs(t *testing.T) {
	t.Parallel()
	guest.Path(t)
	root, err := guest.Root()
	if err != nil {
		t.Fatal(err)
	}
	h, example := host.New(t, binary), filepath.Join(root, "examples", "storage")
	h.Must(t, 0, "apply", "--wait", "-f", example)
	h.Must(t, 0, "plan", "-f", example)
	if got, want := h.Must(t, 0, "get", "store", "-o", "jsonpath={.status.observed.disks[?(@.name==\"logs\")].iops}"), "500\n"; got != want {
		t.Errorf("the limit is %q, want %q", got, want)
	}
}
