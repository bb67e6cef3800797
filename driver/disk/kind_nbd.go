package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// NBD is the kind of exports of a server that speaks the NBD protocol.
type NBD struct{}

var _ Kind = NBD{}

// Name is "nbd".
func (NBD) Name() string { return "nbd" }

// Holds is true for a disk that names a server.
func (NBD) Holds(d *manifest.Disk) bool { return d.NBD != nil }

// Source is the export.
func (NBD) Source(d *manifest.Disk, _ string) Source {
	n := d.NBD
	server := []Option{{"type", "unix"}, {"path", n.Unix}}
	if n.Unix == "" {
		server = []Option{{"type", "inet"}, {"host", n.Host}, {"port", strconv.Itoa(n.Port)}}
	}
	src := Source{Path: n.Unix, Name: n.URI(), Options: []Option{{"driver", "nbd"}, {"server", server}}}
	if n.Export != "" {
		src.Options = append(src.Options, Option{"export", n.Export})
	}
	return src
}

// Look looks whether there is a socket. A server elsewhere is not asked: it may take
// any time to answer, and QEMU says by itself what is wrong with it.
func (NBD) Look(_ context.Context, d *manifest.Disk, src Source, _ bool) (driver.DiskFile, Info) {
	file := driver.DiskFile{Exists: true, Format: string(d.Format)}
	if src.Path == "" {
		return file, Info{}
	}
	info, err := os.Stat(src.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		file.Exists = false
	case err != nil:
		file.Err = err.Error()
	case info.Mode()&fs.ModeSocket == 0:
		file.Err = fmt.Sprintf("%s is no socket (%s)", src.Path, info.Mode().Type())
	}
	return file, Info{}
}
