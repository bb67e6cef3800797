package qemu

import (
	"errors"
	"io"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// Allocate completes an identity.
func Allocate(_ driver.Identity, _ *manifest.VirtualMachine, _ driver.Host, _ io.Reader, _ time.Time) (next driver.Identity, changed bool, err error) {
	return driver.Identity{}, false, errors.New("allocation is being laid down")
}
