package manifest

// DiskFormat is the format of a disk image file.
type DiskFormat string

// The disk formats.
const (
	FormatQcow2 DiskFormat = "qcow2"
	FormatRaw   DiskFormat = "raw"
)

// Bus is what a disk is attached to.
type Bus string

// The disk buses. Absent: virtio; for a cdrom sata on q35, else virtio-scsi.
const (
	// BusVirtio is a virtio-blk card of its own.
	BusVirtio Bus = "virtio"
	// BusVirtioSCSI is a unit of the machine's virtio-scsi controller.
	BusVirtioSCSI Bus = "virtio-scsi"
	// BusNVMe is an NVMe card of its own.
	BusNVMe Bus = "nvme"
	// BusSATA is a port of the q35 board's own AHCI controller.
	BusSATA Bus = "sata"
	// BusUSB is a port of the machine's USB controller.
	BusUSB Bus = "usb"
)

// CacheMode is how a disk goes through the caches of the host.
type CacheMode string

// The cache modes, which are QEMU's own. Absent: writeback.
const (
	// CacheWriteback uses the host's page cache and flushes when the guest says so.
	CacheWriteback CacheMode = "writeback"
	// CacheNone passes the host's page cache by.
	CacheNone CacheMode = "none"
	// CacheWritethrough flushes after each write.
	CacheWritethrough CacheMode = "writethrough"
	// CacheDirectSync passes the page cache by, and flushes after each write.
	CacheDirectSync CacheMode = "directsync"
	// CacheUnsafe never flushes: a crash of the host may lose everything.
	CacheUnsafe CacheMode = "unsafe"
)

// AIO is how QEMU reads and writes a file or device.
type AIO string

// The ways, which are QEMU's own. Absent: threads.
const (
	// AIOThreads uses a pool of threads.
	AIOThreads AIO = "threads"
	// AIONative uses Linux AIO, and needs a cache mode that passes the page cache by.
	AIONative AIO = "native"
	// AIOIOUring uses io_uring.
	AIOIOUring AIO = "io_uring"
)

// Discard is what becomes of blocks that the guest discards.
type Discard string

// What becomes of them. Absent: ignore.
const (
	// DiscardIgnore keeps them.
	DiscardIgnore Discard = "ignore"
	// DiscardUnmap gives their space back to the host.
	DiscardUnmap Discard = "unmap"
)

// DetectZeroes is what becomes of zeroes that the guest writes.
type DetectZeroes string

// What becomes of them. Absent: off.
const (
	// DetectZeroesOff writes them like any other data.
	DetectZeroesOff DetectZeroes = "off"
	// DetectZeroesOn stores them as zeroes without data, where the format can.
	DetectZeroesOn DetectZeroes = "on"
	// DetectZeroesUnmap gives their space back to the host; it needs discard: unmap.
	DetectZeroesUnmap DetectZeroes = "unmap"
)

// Media is what a drive holds.
type Media string

// The media. Absent: disk.
const (
	MediaDisk  Media = "disk"
	MediaCDROM Media = "cdrom"
)

// Disk is one drive. Exactly one of Size, Image, File and NBD is given, but that Image
// may have a Size too; a cdrom has one of the latter two, or is empty.
type Disk struct {
	// Name is unique among the machine's disks, nics, filesystems and devices.
	Name string `json:"name"`
	// Size makes maqet create an empty qcow2 of that size once and keep it. A larger
	// size grows it, a smaller one is refused.
	Size Quantity `json:"size,omitempty"`
	// Image is the name of an Image object, of which maqet makes an overlay once and
	// keeps it; with Size the disk is that large, else as large as the image.
	Image string `json:"image,omitempty"`
	// File is an existing image, or a block device below /dev; never created, resized
	// or deleted by maqet.
	File string `json:"file,omitempty"`
	// NBD is an export of a server that speaks the NBD protocol.
	NBD *NBD `json:"nbd,omitempty"`
	// Format is qcow2 or raw. Absent with Size or Image: qcow2; with NBD: raw; required
	// with File.
	Format DiskFormat `json:"format,omitempty"`
	// Bus is what the drive is attached to.
	Bus Bus `json:"bus,omitempty"`
	// Media is disk or cdrom. A cdrom is always read-only.
	Media Media `json:"media,omitempty"`
	// ReadOnly forbids the guest to write.
	ReadOnly bool `json:"readOnly,omitempty"`
	// Serial is the serial number that the guest sees, at most 20 letters, digits,
	// '-', '_' and '.'. Absent: QEMU decides; on nvme it is required.
	Serial string `json:"serial,omitempty"`
	// Cache is how the host caches the disk. Absent: writeback.
	Cache CacheMode `json:"cache,omitempty"`
	// AIO is how QEMU reads and writes a file or device. Absent: threads.
	AIO AIO `json:"aio,omitempty"`
	// Discard is what becomes of blocks that the guest discards. Absent: ignore.
	Discard Discard `json:"discard,omitempty"`
	// DetectZeroes is what becomes of zeroes that the guest writes. Absent: off.
	DetectZeroes DetectZeroes `json:"detectZeroes,omitempty"`
	// IOThread gives the disk a thread of its own in QEMU; on virtio only.
	IOThread bool `json:"ioThread,omitempty"`
	// Throttle limits what the guest may read and write. Absent: no limit.
	Throttle *Throttle `json:"throttle,omitempty"`
}

// Throttle limits a disk, reads and writes together. At least one limit is given.
type Throttle struct {
	// IOPS is the number of operations a second. Absent: no limit.
	IOPS int `json:"iops,omitempty"`
	// BPS is the number of bytes a second. Absent: no limit.
	BPS Quantity `json:"bps,omitempty"`
}

// Limits are the two limits; 0 is none.
func (t *Throttle) Limits() (iops, bps int64) {
	if t == nil {
		return 0, 0
	}
	return int64(t.IOPS), t.BPS.Bytes()
}

// NBD is an export of an NBD server. Exactly one of Unix and Host is given.
type NBD struct {
	// Unix is the path of the server's socket.
	Unix string `json:"unix,omitempty"`
	// Host is the server's address or name.
	Host string `json:"host,omitempty"`
	// Port is the server's TCP port. Absent with Host: 10809.
	Port int `json:"port,omitempty"`
	// Export is the export's name. Absent: the server's default export.
	Export string `json:"export,omitempty"`
}
