package guest

import "slices"

// Flavour is one of Debian's kernels with the modules that a guest can load; those
// they depend on come with them. Module names are file names without the suffix.
type Flavour struct {
	// dir is the flavour's folder below build/.
	dir string
	// meta is the package that stands for today's kernel, pattern what its file is called.
	meta, pattern string
	modules       []string
}

// Cloud is the kernel for virtual machines, which boots quickest and has no drivers
// of real hardware but NVMe's.
func Cloud() Flavour {
	return Flavour{
		dir: "guest", meta: "linux-image-cloud-amd64", pattern: "linux-image-*-cloud-amd64_*.deb",
		modules: []string{
			"button", "evdev",
			"virtio_pci", "virtio_blk", "virtio_net", "virtio_scsi", "virtio_balloon", "virtio_console", "virtio_mem", "virtio-rng",
			"sd_mod", "sr_mod", "isofs", "virtiofs", "nvme",
			"pvpanic-mmio", "pvpanic-pci",
		},
	}
}

// Generic is the kernel for any computer, with the drivers of AHCI, USB and 9p.
func Generic() Flavour {
	return Flavour{
		dir: "guest-generic", meta: "linux-image-amd64", pattern: "linux-image-*[0-9]-amd64_*.deb",
		modules: slices.Concat(Cloud().modules, []string{"ahci", "xhci-pci", "usb-storage", "9pnet_virtio", "9p"}),
	}
}
