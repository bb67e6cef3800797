package qemu

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
)

// standing is what a machine's process is to maqet.
type standing int

const (
	// standingAbsent is proved: no process has the machine's uuid.
	standingAbsent standing = iota
	// standingOurs is the process that the launch record is of.
	standingOurs
	// standingLost is a process with the machine's uuid and pid file that no launch
	// record is left of: its run dir has vanished, or was emptied.
	standingLost
	// standingForeign is a process with the machine's uuid that maqet did not start.
	standingForeign
)

// look is what was found of a machine without asking QEMU.
type look struct {
	*records
	standing standing
	// process is held when it is ours or lost. Whoever looked closes it.
	process *handle
	// other is the process when it is foreign.
	other seen
	// boot is the current boot's id.
	boot string
}

// close lets go of the process.
func (l *look) close() {
	if l.process != nil {
		l.process.close()
	}
}

// sameBoot tells whether the launch record is of the current boot.
func (l *look) sameBoot() bool { return l.launched != nil && l.launched.BootID == l.boot }

// look finds a machine's process.
//
// The pid file names it as a rule. What it names is held first and looked at
// then, so that no other process can take its number in between: it is ours when
// the launch record is of this boot and the command line is the recorded one, word
// for word. Where that fails, all processes are searched for the machine's uuid,
// because a run dir may have vanished under a running machine.
func (d *Driver) look(name string) (*look, error) {
	rec, err := d.readRecords(name)
	if err != nil {
		return nil, err
	}
	l := &look{records: rec}
	if l.boot, err = d.proc.bootID(); err != nil {
		return nil, err
	}
	if rec.pid != 0 && l.sameBoot() {
		h, argv, err := d.hold(rec.pid)
		if err != nil && !errors.Is(err, errNoProcess) {
			return nil, err
		}
		if err == nil && slices.Equal(argv, rec.launched.Argv) {
			l.standing, l.process = standingOurs, h
			return l, nil
		}
		if err == nil {
			h.close()
		}
	}
	if rec.uid() == "" {
		return l, nil
	}
	return l, d.search(name, l)
}

// hold takes hold of a process and reads its command line. The error is
// errNoProcess when it is gone or a zombie.
func (d *Driver) hold(pid int) (*handle, []string, error) {
	h, err := openHandle(pid)
	if err != nil {
		return nil, nil, err
	}
	argv, err := d.examine(h)
	if err != nil {
		h.close()
		return nil, nil, err
	}
	return h, argv, nil
}

// examine reads start time and command line of a process that is held.
func (d *Driver) examine(h *handle) ([]string, error) {
	stat, err := d.proc.stat(h.pid)
	if err != nil {
		return nil, err
	}
	argv, err := d.proc.cmdline(h.pid)
	switch {
	case err != nil:
		return nil, err
	case stat.dead() || h.exited():
		// What was read may be about the next process of that number.
		return nil, errNoProcess
	}
	h.start = stat.start
	return argv, nil
}

// search looks for the machine's uuid among all processes.
func (d *Driver) search(name string, l *look) error {
	candidates, err := d.scanner.find(l.uid())
	if err != nil {
		return err
	}
	for _, c := range candidates {
		h, argv, err := d.hold(c.pid)
		if errors.Is(err, errNoProcess) {
			continue
		}
		if err != nil {
			return err
		}
		if argvUUID(argv) != strings.ToLower(l.uid()) {
			h.close() // Another process by now.
			continue
		}
		if s := d.judge(name, l, argv); s != standingForeign && l.standing != standingForeign {
			l.close()
			l.standing, l.process = s, h
			continue
		}
		// One foreign process is enough for the machine not to be touched.
		h.close()
		l.close()
		l.standing, l.process, l.other = standingForeign, nil, seen{c.pid, argv}
	}
	return nil
}

// judge says what a process with the machine's uuid is, by its command line.
func (d *Driver) judge(name string, l *look, argv []string) standing {
	switch {
	case l.sameBoot() && slices.Equal(argv, l.launched.Argv):
		return standingOurs
	case l.launched == nil && pidFileOf(argv) == d.layout.PIDFile(name):
		return standingLost
	default:
		return standingForeign
	}
}

// pidFileOf is the pid file that a QEMU's command line names.
func pidFileOf(argv []string) string {
	if i := slices.Index(argv, "-pidfile"); i >= 0 && i+1 < len(argv) {
		return argv[i+1]
	}
	return ""
}

// present is an error that says why a machine that must be stopped is not, or nil.
func (l *look) present() error {
	switch l.standing {
	case standingAbsent:
		return nil
	case standingOurs:
		return fmt.Errorf("its QEMU is running (pid %d)", l.process.pid)
	case standingLost:
		return fmt.Errorf("%w: pid %d runs, and its run dir is gone", ErrSocketsLost, l.process.pid)
	case standingForeign:
		return l.foreign()
	default:
		return fmt.Errorf("unknown standing %d", l.standing)
	}
}

// foreign is the error about a process that is not ours.
func (l *look) foreign() error {
	return fmt.Errorf("%w: %s (pid %d) has the machine's uuid %s", driver.ErrForeign, l.other.command(), l.other.pid, l.uid())
}

// presentHint is what to do about a machine that must be stopped and is not.
func (l *look) presentHint(name string) string {
	switch l.standing {
	case standingAbsent:
		return ""
	case standingOurs:
		return "stop it first with: maqet stop " + name
	case standingLost:
		return lostHint(l.process.pid)
	case standingForeign:
		return fmt.Sprintf("end process %d yourself if it should not run; maqet never signals it", l.other.pid)
	default:
		return ""
	}
}

// lostHint is the remedy for a process whose sockets are gone.
func lostHint(pid int) string {
	return fmt.Sprintf("its sockets cannot be made again: shut the guest down from inside, or end it with: kill %d; then apply", pid)
}

// ErrSocketsLost is wrapped when a machine runs and cannot be reached, since its
// run dir has vanished.
var ErrSocketsLost = errors.New("its sockets are lost")

// ErrNotRunning is wrapped when there is no QEMU to talk to.
var ErrNotRunning = errors.New("it is not running")
