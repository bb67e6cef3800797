package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// answering is how long a libvirt daemon may take to answer.
const answering = 15 * time.Second

// domain is the machine of the other cases in libvirt's words: no more devices
// than libvirt itself insists on.
const domain = `<domain type="qemu">
  <name>%[1]s</name>
  <memory unit="MiB">64</memory>
  <os><type arch="x86_64" machine="q35">hvm</type></os>
  <devices>
    <emulator>%[2]s</emulator>
    <memballoon model="none"/>
  </devices>
</domain>
`

// libvirt is one domain of a libvirt daemon that answers.
type libvirt struct {
	lab       *Lab
	uri, name string
}

// openLibvirt compares with libvirt: start with start, or a hard stop with destroy.
func openLibvirt(ctx context.Context, lab *Lab, start bool) (Bench, error) {
	v, err := lab.libvirt(ctx)
	if err != nil {
		return Bench{}, err
	}
	s, _, err := openOne(ctx, lab, "libvirt"+strconv.FormatBool(start), false)
	if err != nil {
		return Bench{}, errors.Join(err, v.close(ctx))
	}
	name := s.names[0]
	up, down := []string{"start", name}, []string{"stop", "--force", name}
	destroy := func(ctx context.Context) error { return v.virsh(ctx, "destroy", v.name) }
	run := func(ctx context.Context) error { return v.virsh(ctx, "start", v.name) }
	b := Bench{
		Ours: Half{
			Before: func(ctx context.Context) error { return s.maqet(ctx, up...) },
			Do:     func(ctx context.Context) error { return s.maqet(ctx, down...) },
		},
		Raw:   Half{Before: run, Do: destroy},
		Close: func(ctx context.Context) error { return errors.Join(s.close(ctx), v.close(ctx)) },
	}
	if start {
		b.Ours.Before, b.Ours.Do = b.Ours.Do, b.Ours.Before
		b.Raw.Before, b.Raw.Do = b.Raw.Do, b.Raw.Before
		// A first stop needs something that runs.
		if err := run(ctx); err != nil {
			return Bench{}, errors.Join(err, b.Close(ctx))
		}
	}
	return b, nil
}

// libvirt defines the domain in the daemon that this user reaches.
func (l *Lab) libvirt(ctx context.Context) (*libvirt, error) {
	v, err := l.reachLibvirt(ctx)
	if err != nil {
		return nil, err
	}
	emulator, err := exec.LookPath(Emulator)
	if err != nil {
		return nil, fmt.Errorf("find the emulator for libvirt: %w", err)
	}
	return v, v.define(ctx, fmt.Sprintf(domain, v.name, emulator))
}

// reachLibvirt finds the daemon that this user reaches: root the system's, others
// their own, which virsh starts.
func (l *Lab) reachLibvirt(ctx context.Context) (*libvirt, error) {
	if _, err := exec.LookPath("virsh"); err != nil {
		return nil, fmt.Errorf("%w: virsh is not installed", ErrSkip)
	}
	v := &libvirt{lab: l, uri: "qemu:///session", name: "maqet-bench-" + strconv.Itoa(os.Getpid())}
	if os.Geteuid() == 0 {
		v.uri = "qemu:///system"
	}
	asking, cancel := context.WithTimeout(ctx, answering)
	defer cancel()
	if err := v.virsh(asking, "version"); err != nil {
		return nil, fmt.Errorf("%w: no libvirt daemon answers at %s: %w", ErrSkip, v.uri, err)
	}
	return v, nil
}

func (v *libvirt) virsh(ctx context.Context, args ...string) error {
	return v.lab.run(ctx, nil, "virsh", append([]string{"-q", "-c", v.uri}, args...)...)
}

// close ends and forgets the domain, also after Ctrl-C.
func (v *libvirt) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answering)
	defer cancel()
	// It may be stopped already.
	_ = v.virsh(ctx, "destroy", v.name)
	return v.virsh(ctx, "undefine", v.name, "--snapshots-metadata")
}
