package manifest

import "fmt"

// tuning looks at how a drive is read and written.
func (v *validator) tuning(d *Disk, path string) {
	if d.IsEmpty() {
		for _, key := range []string{"cache", "aio", "discard", "detectZeroes", "throttle"} {
			if v.isWritten(path, key) {
				v.fault(path+"."+key, "means nothing for an empty drive", "give the drive a file, or remove the key")
			}
		}
		return
	}
	v.access(d, path)
	v.throttle(d.Throttle, path+".throttle")
	v.space(d, path, !d.ReadOnly && d.Media != MediaCDROM)
	if d.IOThread && (d.Bus != "" && d.Bus != BusVirtio || d.Media == MediaCDROM) {
		v.fault(path+".ioThread", "only a disk on virtio can have a thread of its own", "use bus: virtio, or remove the key")
	}
}

// access looks at how the host reads and writes.
func (v *validator) access(d *Disk, path string) {
	switch {
	case d.AIO != "" && d.NBD != nil:
		v.fault(path+".aio", "means nothing for nbd", "remove the key")
	case d.AIO == AIONative && d.Cache != CacheNone && d.Cache != CacheDirectSync:
		v.fault(path+".aio", "native needs a cache mode that passes the host's page cache by", "add cache: none, or use io_uring")
	}
}

// space looks at what gives space back.
func (v *validator) space(d *Disk, path string, writable bool) {
	const readOnly, remove = "means nothing for a drive that the guest cannot write to", "remove the key"
	if !writable && d.Discard != "" {
		v.fault(path+".discard", readOnly, remove)
	}
	switch {
	case d.DetectZeroes == "":
	case !writable:
		v.fault(path+".detectZeroes", readOnly, remove)
	case d.DetectZeroes == DetectZeroesUnmap && d.Discard != DiscardUnmap:
		v.fault(path+".detectZeroes", "unmap needs discard: unmap", "add it, or use \"on\"")
	}
}

// maxLimit is the largest limit that QEMU takes.
const maxLimit = 1_000_000_000_000_000

// throttle looks at the limits.
func (v *validator) throttle(t *Throttle, path string) {
	if t == nil {
		return
	}
	if !v.isWritten(path, "iops") && !v.isWritten(path, "bps") {
		v.fault(path, "limits nothing", "give it iops, bps or both, or remove the key")
	}
	if v.isWritten(path, "iops") && t.IOPS < 1 {
		v.fault(path+".iops", fmt.Sprintf("%d is no limit", t.IOPS), "use a number of operations a second, or remove the key for no limit")
	}
	if v.isWritten(path, "bps") && (t.BPS < 1 || t.BPS > maxLimit) {
		v.fault(path+".bps", t.BPS.String()+" is no limit", "use a number of bytes a second such as 50Mi, or remove the key for no limit")
	}
}
