package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"regexp"
	"strconv"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// errNoProbe tells that a readiness probe cannot be tried at all.
var errNoProbe = errors.New("the readiness probe cannot be tried")

// readiness is the probe of a machine: the desired one, or that of the launch record.
// It is nil for a machine that is Ready when QEMU says running.
func readiness(vm *manifest.VirtualMachine, launched *driver.Launched) *manifest.Readiness {
	switch {
	case vm != nil:
		return vm.Spec.Readiness
	case launched != nil:
		return launched.Spec.Readiness
	default:
		return nil
	}
}

// sameProbe tells whether two probes look for the same thing, however long they may take.
func sameProbe(a, b *manifest.Readiness) bool {
	if a == nil || b == nil {
		return a == b
	}
	return reflect.DeepEqual(a.Serial, b.Serial) && reflect.DeepEqual(a.TCP, b.TCP) && reflect.DeepEqual(a.GuestAgent, b.GuestAgent)
}

// latched tells whether the probe has succeeded before in this run of the guest.
func latched(probe *manifest.Readiness, launched *driver.Launched) bool {
	return launched != nil && !launched.ReadyAt.IsZero() && sameProbe(probe, launched.Spec.Readiness)
}

// awayReady tries a probe that needs no connection to QEMU, before the lock of the
// socket is taken: a guest's own address may take its time to answer.
func (o *observation) awayReady(ctx context.Context, l *look) {
	probe := readiness(o.vm, l.launched)
	if probe == nil || probe.TCP == nil || probe.TCP.Host == "" || latched(probe, l.launched) {
		return
	}
	o.reached = o.driver.dialGuest(ctx, probe.TCP.Host, probe.TCP.Port)
}

// ready finds out whether the guest is Ready, and remembers it when it is: a probe
// has to succeed once in a run of the guest.
func (o *observation) ready(ctx context.Context, conn *qmp.Conn) {
	probe := readiness(o.vm, o.Launched)
	switch {
	case probe == nil:
		o.Ready = o.Guest.RunState == runStateRunning
		return
	case latched(probe, o.Launched):
		o.Ready = true
		return
	case probe.GuestAgent != nil:
		// The agent is asked later, when others may ask QEMU again.
		o.askAgent = true
		return
	}
	ready, err := o.try(ctx, conn, probe)
	if err != nil {
		o.driver.log.LogAttrs(ctx, slog.LevelWarn, "readiness probe failed", slog.String("vm", o.Name), slog.Any("err", err))
	}
	o.isReady(ctx, probe, ready)
}

// isReady takes over what came of a probe, and remembers a success. The lock of the
// cli socket is held.
func (o *observation) isReady(ctx context.Context, probe *manifest.Readiness, ready bool) {
	o.Ready = ready
	if !ready || o.Launched == nil || !sameProbe(probe, o.Launched.Spec.Readiness) {
		return
	}
	err := o.driver.updateLaunched(o.Name, o.Launched, func(l *driver.Launched) { l.ReadyAt = o.At.UTC() })
	if err != nil {
		o.driver.log.LogAttrs(ctx, slog.LevelWarn, "remembering readiness failed", slog.String("vm", o.Name), slog.Any("err", err))
	}
}

// agentReady asks the guest's agent for a sign of life. No lock but the agent's own is
// held, since a guest may take its time.
func (o *observation) agentReady(ctx context.Context) {
	port := o.Guest.Agent
	if port == nil || !port.Open || o.Guest.RunState != runStateRunning || !o.driver.agentAnswers(ctx, o.Name) {
		return
	}
	leave, err := o.driver.enter(ctx, o.Name)
	if err != nil {
		o.driver.log.LogAttrs(ctx, slog.LevelWarn, "remembering readiness failed", slog.String("vm", o.Name), slog.Any("err", err))
		o.Ready = true
		return
	}
	defer leave()
	o.isReady(ctx, readiness(o.vm, o.Launched), true)
}

// runStateRunning is what query-status says while the vCPUs run.
const runStateRunning = "running"

// try tries a probe once.
func (o *observation) try(ctx context.Context, conn *qmp.Conn, probe *manifest.Readiness) (bool, error) {
	switch {
	case probe.Serial != nil:
		if o.Launched == nil {
			return false, nil // which part of the log is of this run is not known
		}
		scan, err := newSerialScan(o.driver.layout.SerialLog(o.Name), o.Launched.SerialOffset, probe.Serial.Match)
		if err != nil {
			return false, err
		}
		return scan.more()
	case probe.TCP != nil && probe.TCP.Host != "":
		return o.reached, nil
	case probe.TCP != nil:
		f, err := forwardTo(nicsOf(o.vm, o.Launched), probe.TCP.Port)
		if err != nil {
			return false, err
		}
		return o.driver.forwardOpen(ctx, conn, f)
	default:
		return false, fmt.Errorf("%w: it names nothing to be tried", errNoProbe)
	}
}

// nicsOf are the cards of the running process, whose forwards are those that hold.
func nicsOf(vm *manifest.VirtualMachine, launched *driver.Launched) []manifest.NIC {
	switch {
	case launched != nil:
		return launched.Spec.NICs
	case vm != nil:
		return vm.Spec.NICs
	default:
		return nil
	}
}

// forwardTo is the forward that reaches a port of the guest.
func forwardTo(nics []manifest.NIC, port int) (manifest.Forward, error) {
	for i := range nics {
		if nics[i].User == nil {
			continue
		}
		for _, text := range nics[i].User.Forward {
			f, err := manifest.ParseForward(text)
			if err == nil && f.Proto == "tcp" && f.GuestPort == port {
				return f, nil
			}
		}
	}
	return manifest.Forward{}, fmt.Errorf("%w: no forward reaches port %d of the running guest", errNoProbe, port)
}

// dialGuest tells whether a port of the guest's own address accepts connections.
func (d *Driver) dialGuest(ctx context.Context, host string, port int) bool {
	ctx, cancel := context.WithTimeout(ctx, d.timing.Connect)
	defer cancel()
	var dialer net.Dialer
	nc, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	_ = nc.Close() // nothing was said
	return true
}

// compileMatch is the expression of a serial probe.
func compileMatch(match string) (*regexp.Regexp, error) {
	re, err := regexp.Compile(match)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoProbe, err)
	}
	return re, nil
}
