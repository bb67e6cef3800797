package qemu

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// BenchmarkStart_q35 is a start until it is confirmed.
func BenchmarkStart_q35(b *testing.B) {
	r := newRig(b)
	vm := r.vm("web")
	r.start(vm, false)
	for b.Loop() {
		b.StopTimer()
		r.endOne("web")
		b.StartTimer()
		if _, err := r.Start(b.Context(), driver.StartRequest{VM: vm}); err != nil {
			b.Fatal(err)
		}
	}
}

// endOne ends a machine and clears what it left.
func (r *rig) endOne(name string) {
	r.t.Helper()
	r.signal(name, unix.SIGKILL)
	r.waitEnd(name)
	r.must(r.ClearRun(r.t.Context(), name))
}

// BenchmarkStart_q35Raw is the same command line, started and asked without maqet.
func BenchmarkStart_q35Raw(b *testing.B) {
	r := newRig(b)
	vm := r.vm("web")
	_, err := r.EnsureIdentity(b.Context(), vm)
	r.must(err)
	cmd, err := r.Render(b.Context(), vm)
	r.must(err)
	r.must(os.MkdirAll(r.layout.RunDir("web"), 0o700))
	for b.Loop() {
		var files []*os.File
		for _, f := range cmd.Files {
			path := r.layout.CLISocket("web")
			if f.Kind == QMPListener {
				path = r.layout.QMPSocket("web")
			}
			l, err := listen(path)
			r.must(err)
			files = append(files, l)
		}
		p := exec.Command(cmd.Argv[0], cmd.Argv[1:]...) //nolint:gosec // ended below
		p.ExtraFiles = files
		r.must(p.Start())
		for _, f := range files {
			r.must(f.Close())
		}
		var status struct{ Status string }
		call := qmp.NewCall("query-status", nil, &status)
		c, err := qmp.DialPipelined(b.Context(), r.layout.CLISocket("web"), qmp.Options{}, call)
		r.must(err)
		r.must(call.Wait(b.Context()))
		b.StopTimer()
		r.must(c.Close())
		r.must(p.Process.Kill())
		_ = p.Wait() // it was killed
		r.must(r.removeRun("web"))
		r.must(os.MkdirAll(r.layout.RunDir("web"), 0o700))
		b.StartTimer()
	}
}

// fleet starts machines to be looked at.
func fleet(b *testing.B, n int) (*rig, []*manifest.VirtualMachine) {
	b.Helper()
	r := newRig(b)
	var vms []*manifest.VirtualMachine
	for i := range n {
		vm := r.vm("m"+strconv.Itoa(i), bareBoard)
		r.start(vm, false)
		vms = append(vms, vm)
	}
	b.ResetTimer()
	return r, vms
}

const fleetSize = 20

// inParallel does something to all machines, eight at a time.
func inParallel(vms []*manifest.VirtualMachine, do func(*manifest.VirtualMachine)) {
	var all sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, vm := range vms {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			do(vm)
		})
	}
	all.Wait()
}

func benchmarkObserve(b *testing.B, depth driver.Depth) {
	b.Helper()
	r, vms := fleet(b, fleetSize)
	for b.Loop() {
		inParallel(vms, func(vm *manifest.VirtualMachine) {
			if o := r.Observe(b.Context(), vm.Metadata.Name, vm, depth); o.Presence != driver.Alive {
				b.Errorf("%s: %s", o.Name, o.Message)
			}
		})
	}
}

// BenchmarkObserve_brief looks at 20 machines, eight at a time.
func BenchmarkObserve_brief(b *testing.B) { benchmarkObserve(b, driver.DepthBrief) }

// BenchmarkObserve_full asks them everything.
func BenchmarkObserve_full(b *testing.B) { benchmarkObserve(b, driver.DepthFull) }

// BenchmarkObserve_raw asks them query-status over a bare connection.
func BenchmarkObserve_raw(b *testing.B) {
	r, vms := fleet(b, fleetSize)
	for b.Loop() {
		inParallel(vms, func(vm *manifest.VirtualMachine) {
			err := func(ctx context.Context) error {
				call := qmp.NewCall("query-status", nil, nil)
				c, err := qmp.DialPipelined(ctx, r.layout.CLISocket(vm.Metadata.Name), qmp.Options{}, call)
				if err != nil {
					return err
				}
				defer func() { _ = c.Close() }()
				return call.Wait(ctx)
			}(b.Context())
			if err != nil {
				b.Error(err)
			}
		})
	}
}
