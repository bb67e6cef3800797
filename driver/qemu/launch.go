package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
)

// Start starts a machine and returns when its QEMU has answered query-status. The
// caller holds the machine's lock.
//
// What the new QEMU says of itself right then is a first full look at the machine,
// for less than another visit would cost. It is nil when QEMU did not say everything;
// that is no failure of the start.
//
// A start that fails leaves no process and nothing in the run dir; what QEMU said
// stays in its log. It is refused while any process has the machine's uuid.
func (d *Driver) Start(ctx context.Context, req driver.StartRequest) (*driver.Observed, error) {
	const op = "start"
	name := req.VM.Metadata.Name
	if err := d.prepare(name); err != nil {
		return nil, fail(op, name, err, "")
	}
	begun := time.Now()
	pid, first, err := d.start(ctx, req)
	if err != nil {
		return nil, fail(op, name, err, "")
	}
	d.log.LogAttrs(ctx, slog.LevelInfo, "machine started",
		slog.String("vm", name), slog.Int("pid", pid), slog.Duration("dur", time.Since(begun)))
	return first, nil
}

// prepare makes the folders and refuses what can never work.
func (d *Driver) prepare(name string) error {
	if err := checkName(d.layout, name); err != nil {
		return err
	}
	if err := layout.EnsureDirs(d.layout); err != nil {
		return err
	}
	return d.checkSocketPaths(name)
}

// start does the work of Start and returns the pid, too.
func (d *Driver) start(ctx context.Context, req driver.StartRequest) (pid int, first *driver.Observed, err error) {
	name := req.VM.Metadata.Name
	vm, cmd, record, err := d.compose(ctx, req)
	if err != nil {
		return 0, nil, err
	}
	account, err := accountOf(vm)
	if err != nil {
		return 0, nil, err
	}
	leave, err := d.enter(ctx, name)
	if err != nil {
		return 0, nil, err
	}
	defer leave()
	if err := d.clearForStart(name); err != nil {
		return 0, nil, err
	}
	if err := d.findHelpers(ctx, vm); err != nil {
		return 0, nil, err
	}
	if err := d.prepareFirmware(ctx, vm, record.Identity); err != nil {
		return 0, nil, err
	}
	undo, err := d.prepareSeed(ctx, vm, record.UID, req.From != nil)
	if err != nil {
		return 0, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, undo())
		}
	}()
	l, err := d.newLaunch(ctx, vm, cmd, record, account)
	if err != nil {
		return 0, nil, errors.Join(err, d.removeRun(name))
	}
	defer l.close()
	if err := l.exec(ctx); err != nil {
		return 0, nil, errors.Join(err, d.removeRun(name))
	}
	talk, err := l.confirmScoped(ctx)
	if err != nil {
		return 0, nil, l.fail(ctx, err)
	}
	defer talk.close()
	d.limitStarted(ctx, vm, talk)
	if addedThen(req) > 0 {
		d.addStarted(ctx, record, talk)
		return l.child.pid, nil, nil // What it said first is no longer so.
	}
	return l.child.pid, l.look(ctx, talk), nil
}

// addedThen is how many vCPUs had been added to the machine that is started as it was then.
func addedThen(req driver.StartRequest) int {
	if req.From == nil || req.From.Guest == nil {
		return 0
	}
	return req.From.Guest.AddedCPUs
}

// addStarted adds the vCPUs that had been added to the machine as it was then: devices
// are of the size that goes with those that it was started with. What fails is seen by
// the next look, and nothing is loaded into other devices.
func (d *Driver) addStarted(ctx context.Context, record *driver.Launched, t *talk) {
	ctx, cancel := context.WithTimeout(ctx, d.timing.Query)
	defer cancel()
	if err := addCPUs(ctx, t.conn, record.Spec.CPU.VCPUs()); err != nil {
		d.log.WarnContext(ctx, "adding the vCPUs of a snapshot failed", "uid", record.UID, "err", err)
	}
}

// compose is the object that is really started, its command line, and the launch
// record that goes with it.
func (d *Driver) compose(ctx context.Context, req driver.StartRequest) (*manifest.VirtualMachine, Command, *driver.Launched, error) {
	vm := req.VM
	id, host, err := d.identify(ctx, vm)
	if err == nil && req.From != nil {
		vm, id, err = startedFrom(vm, id, req.From)
	}
	if err == nil && req.From != nil {
		host, err = d.hostOf(ctx, vm)
	}
	if err != nil {
		return nil, Command{}, nil, err
	}
	ports := 0
	if driver.BusFamilyOf(id.Machine.Type) == driver.FamilyPCIe {
		ports = driver.PortsNeeded(&vm.Spec, id.Slots)
	}
	spec := vm.Spec
	if req.From != nil {
		// Memory is loaded into the very ports that it was of.
		ports = req.From.Launched.PortCount()
		if n := addedThen(req); n > 0 {
			vm = vm.DeepCopy()
			vm.Spec.CPU = withCount(vm.Spec.CPU, vm.Spec.CPU.VCPUs()-n)
		}
	}
	cmd, err := Render(RenderInput{VM: vm, Identity: id, Host: host, Layout: d.layout, Kinds: d.kinds, Paused: req.Paused, Ports: ports})
	if err != nil {
		return nil, Command{}, nil, err
	}
	boot, err := d.proc.bootID()
	if err != nil {
		return nil, Command{}, nil, err
	}
	return vm, cmd, &driver.Launched{
		Version: driver.LaunchedVersion, UID: id.UID, Argv: cmd.Argv, Spec: spec, Generation: req.Generation,
		Machine: id.Machine.Type, Identity: id, QEMU: host.Version, BootID: boot, Ports: ports,
	}, nil
}

// findHelpers tells which of the programs that QEMU talks to is missing, before anything
// is made for it.
func (d *Driver) findHelpers(ctx context.Context, vm *manifest.VirtualMachine) error {
	if vm.Spec.TPM != nil {
		if _, missing := findSWTPM(vm); missing != nil {
			return missing
		}
	}
	return d.prober.sharable(ctx, vm)
}

// clearForStart proves that no process has the machine's uuid, and removes what the
// last one left: its sockets would be in the way.
func (d *Driver) clearForStart(name string) error {
	l, err := d.look(name)
	if err != nil {
		return err
	}
	defer l.close()
	// The last process may have had another uuid than the identity that would be
	// started now, as when disks were brought back from a backup.
	if l.standing == standingAbsent && l.identity != nil && l.uid() != l.identity.UID {
		found, err := d.scanner.find(l.identity.UID)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			l.standing, l.other = standingForeign, found[0]
		}
	}
	if err := l.present(); err != nil {
		return fail("start", name, err, l.presentHint(name))
	}
	return d.removeRun(name)
}

// fail ends a QEMU that was not confirmed, removes what it left, and says why it
// was not.
func (l *launch) fail(ctx context.Context, cause error) error {
	d := l.driver
	given := ctx.Err()
	ctx = context.WithoutCancel(ctx)
	ended := false
	if errors.Is(cause, qmp.ErrClosed) {
		// It has let go of its socket, so it is about to end by itself.
		waiting, cancel := context.WithTimeout(ctx, d.timing.Quit)
		ended = l.child.wait(waiting) == nil
		cancel()
	}
	ctx, cancel := context.WithTimeout(ctx, d.timing.Kill)
	defer cancel()
	var err error
	if !ended {
		err = l.child.kill(ctx)
	}
	if l.child.over() {
		err = errors.Join(err, d.removeRun(l.name))
	}
	err = errors.Join(l.verdict(ctx, given, ended, cause), err)
	d.children.forget(l.record)
	return fail("start", l.name, err, "")
}

// verdict says why a QEMU was not confirmed. How it ended by itself is the answer;
// given is the end of the caller's context, who wants no answer any more.
func (l *launch) verdict(ctx context.Context, given error, ended bool, cause error) error {
	d := l.driver
	last := lastLine(d.layout.QEMULog(l.name), l.record.LogOffset)
	switch {
	case ended:
		if image, complaint := lockedImage(d.layout.QEMULog(l.name), l.record.LogOffset); image != "" {
			return l.inUse(image, &driver.StartError{Exit: l.child.words(), LastLine: complaint})
		}
		return &driver.LifecycleError{
			VM: l.name, Op: "start", Refused: true, Err: &driver.StartError{Exit: l.child.words(), LastLine: last}, Hint: l.advice(ctx),
		}
	case given != nil:
		return fail("start", l.name, fmt.Errorf("given up before QEMU answered: %w", given), "apply again")
	case errors.Is(cause, context.DeadlineExceeded):
		return fail("start", l.name, &driver.StartError{
			Exit: l.child.words(), LastLine: last,
			Err: fmt.Errorf("%w within %s; it was ended", driver.ErrUnresponsive, d.timing.Start),
		}, "allow more time with --timeouts start=DURATION")
	default:
		return cause
	}
}

// inUse says who has the image that QEMU could not lock.
func (l *launch) inUse(image string, start *driver.StartError) error {
	what := "the image " + image
	for i := range l.vm.Spec.Disks {
		d := &l.vm.Spec.Disks[i]
		src, err := l.driver.kinds.Source(d, l.driver.layout.Disk(l.name, d.Name))
		if err == nil && src.Path == image {
			what = "disk " + d.Name + " (" + image + ")"
		}
	}
	held := disk.InUse(image, fmt.Errorf("%w: %w", disk.ErrInUse, start))
	return &driver.LifecycleError{VM: l.name, Op: "start", Refused: true, Err: fmt.Errorf("%s: %w", what, held.Err), Hint: held.Hint}
}

// advice is what a check of the machine against this host finds. It is not made
// before a start, because a machine that starts needs none.
func (l *launch) advice(ctx context.Context) string {
	if words := l.sharesWords(); words != "" {
		return words
	}
	hint := "see all it said with: maqet logs --qemu " + l.name
	_, findings, err := l.driver.prober.Check(ctx, l.vm)
	if err != nil || len(findings) == 0 {
		return hint
	}
	f := findings[0]
	return fmt.Sprintf("%s: %s; %s", f.Path, f.Msg, f.Hint)
}
