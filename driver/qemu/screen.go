package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver/qmp"
)

// ErrNoScreen is of a machine that has no graphics card.
var ErrNoScreen = errors.New("it has no screen")

// maxPicture is the largest picture that is read: more than 8192 by 8192 pixels.
const maxPicture = 256 << 20

// opScreen is what an error of the screen says was tried.
const opScreen = "take a picture of the screen of"

// Screendump is a picture of what the guest's first graphics card shows now. A machine
// that is paused has one, too. QEMU writes it into a file without a name that is handed
// to it, so neither its sandbox nor its user matter, and nobody else can read it.
func (d *Driver) Screendump(ctx context.Context, name string) (*Picture, error) {
	ours, theirs, err := namelessFile("maqet-screen")
	if err != nil {
		return nil, fail(opScreen, name, err, "")
	}
	defer func() { _ = ours.Close() }() // it is only read
	err = d.Visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		ctx, cancel := context.WithTimeout(ctx, d.timing.Query)
		defer cancel()
		return dumpInto(ctx, c, theirs)
	})
	_ = theirs.Close() // nothing was written through it
	if err != nil {
		return nil, asOp(opScreen, name, screenError(name, err))
	}
	text, err := io.ReadAll(io.NewSectionReader(ours, 0, maxPicture))
	if err != nil {
		return nil, fail(opScreen, name, fmt.Errorf("read what QEMU has written: %w", err), "")
	}
	picture, err := readPPM(text)
	return picture, fail(opScreen, name, err, "")
}

// dumpInto has QEMU write a picture into a file that it is given for the moment. It is of
// the format PPM: of a set that it has written a PNG to, QEMU 7.2 never lets go.
func dumpInto(ctx context.Context, c *qmp.Conn, f *os.File) error {
	var set struct {
		ID int `json:"fdset-id"`
	}
	if err := c.DoWithFile(ctx, "add-fd", map[string]any{"opaque": "maqet.screen"}, &set, f); err != nil {
		return err
	}
	path := fmt.Sprintf("/dev/fdset/%d", set.ID)
	err := c.Do(ctx, "screendump", map[string]any{"filename": path, "format": "ppm"}, nil)
	// Also where ctx is over: QEMU would keep the file open for ever.
	return errors.Join(err, c.Do(context.WithoutCancel(ctx), "remove-fd", map[string]any{"fdset-id": set.ID}, nil))
}

// screenError says what QEMU means.
func screenError(name string, err error) error {
	if refusal, ok := errors.AsType[*qmp.Error](err); ok && strings.Contains(refusal.Desc, "no console") {
		return fail(opScreen, name, fmt.Errorf("%w: %w", ErrNoScreen, err), "add a graphics card to its spec, such as devices: [{name: vga, driver: VGA}]")
	}
	return err
}

// namelessFile makes a file in memory, and opens it once more for writing only, which is
// how QEMU opens what it writes pictures to.
func namelessFile(name string) (ours, theirs *os.File, err error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, os.NewSyscallError("memfd_create", err)
	}
	ours = os.NewFile(uintptr(fd), name)
	theirs, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_WRONLY, 0)
	if err != nil {
		return nil, nil, errors.Join(err, ours.Close())
	}
	return ours, theirs, nil
}
