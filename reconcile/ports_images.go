package reconcile

import (
	"context"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// Images fetches and keeps the images that disks are made of.
type Images interface {
	// Look says what is there of an image. It is quick: it looks at files alone.
	Look(spec manifest.ImageSpec) driver.ImageState
	// Pull makes an image present, which may take long, and tells how far it is.
	// What was fetched when ctx ends is gone on with by the next Pull.
	Pull(ctx context.Context, spec manifest.ImageSpec, told func(driver.Transfer)) (driver.ImageState, error)
}

// Overlays makes disks of images.
type Overlays interface {
	// CreateOverlay makes a disk of an image that is present, and records of which;
	// an existing file is never touched and is no error.
	CreateOverlay(ctx context.Context, vm *manifest.VirtualMachine, disk string, image driver.ImageState) error
	// SetAside moves a disk's file of a machine that has no process to the kept
	// ones. A disk without a file is no error.
	SetAside(ctx context.Context, vm *manifest.VirtualMachine, disk string) (keptAt string, err error)
}
