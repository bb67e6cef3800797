package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// idleSpan is how long the processor time of an idle watch is taken.
	idleSpan = 20 * time.Second
	// lookSpan is how long a look at all machines has, 10 ms apart each.
	lookSpan = 5 * time.Second
	// settling is how long a machine runs before it is killed.
	settling = 1200 * time.Millisecond
	// askAgain is how long to wait before looking again for what tells nobody.
	askAgain = 2 * time.Millisecond
)

// watchCases are the comparisons of a watch.
func watchCases(fleet string) []Case {
	return []Case{
		{
			Name: "watch-cpu", Does: fmt.Sprintf("maqet watch over %s, share of one core in %s in which nothing happens", fleet, idleSpan),
			Aim: "< 0.2 %", Unit: Cores, Heavy: true, Open: openIdle,
		},
		{
			Name: "watch-look", Does: "maqet watch: processor time of one look at all manifests and " + fleet + ", which it takes every 5 minutes",
			Heavy: true, Open: openLook,
		},
		{
			Name: "watch-rss", Does: "maqet watch over " + fleet + ": resident memory after looks at all", Aim: "< 60 MB", Unit: Bytes, Heavy: true,
			Open: func(ctx context.Context, lab *Lab) (Bench, error) { return openMemory(ctx, lab, "Rss") },
		},
		{
			Name: "watch-pss", Does: "the same, with what is shared counted in part", Aim: "< 60 MB", Unit: Bytes, Heavy: true,
			Open: func(ctx context.Context, lab *Lab) (Bench, error) { return openMemory(ctx, lab, "Pss") },
		},
		{
			Name: "watch-notice", Does: "kill -9 of QEMU until maqet watch says so", Against: "kill -9 until a client reads the end of its monitor",
			Aim: "< 5 ms", Open: func(ctx context.Context, lab *Lab) (Bench, error) {
				return openNotice(ctx, lab, "notice", func(line string) bool { return strings.Contains(line, " vm=") })
			},
		},
		{
			Name: "watch-record", Does: "the same until its cause is found, recorded and shown", Against: "the same",
			Open: func(ctx context.Context, lab *Lab) (Bench, error) {
				return openNotice(ctx, lab, "record", func(line string) bool { return strings.Contains(line, " action=record-end ") })
			},
		},
		{
			Name: "watch-restart", Does: "kill -9 of QEMU until it runs again, with a backoff of 1 ms", Against: "kill -9 until its end is read, sh: the same argv, then a client until it runs",
			Open: openRestart,
		},
		{
			Name: "watch-edit", Does: "a manifest saved until its QMP command arrives at QEMU's monitor",
			Aim: "< 300 ms", Open: openEdit,
		},
		{
			Name: "watch-boot", Does: "maqet watch after a boot until " + fleet + " run", Against: fmt.Sprintf("the same argvs, %d at a time, each until it runs", startAtATime),
			Heavy: true, Open: openBoot,
		},
	}
}

// watch starts a watch over the site's folder.
func (s *site) watch(flags ...string) (*process, error) {
	return s.lab.begin(s.env(), s.lab.Maqet, append([]string{"watch", s.manifests, "--owner", owner}, flags...)...)
}

// changed matches what a watch says when a machine is in another phase.
func changed(name, phase string) func(string) bool {
	return func(line string) bool {
		return strings.Contains(line, `msg="a machine changed" vm=`+name) && strings.Contains(line, " phase="+phase+" ")
	}
}

// allRun waits until the watch has said of every machine that it runs.
func (s *site) allRun(ctx context.Context, watch *process) error {
	return watch.await(ctx, 0, changed("", "Running"), len(s.names))
}

// overFleet starts a watch over the machines that run all the time, and waits
// until it listens to each.
func overFleet(ctx context.Context, lab *Lab) (*process, error) {
	s, err := lab.running(ctx)
	if err != nil {
		return nil, err
	}
	watch, err := s.watch()
	if err != nil {
		return nil, err
	}
	err = s.allRun(ctx, watch)
	for _, name := range s.names {
		if err == nil {
			err = s.heard(ctx, name)
		}
	}
	if err != nil {
		return nil, errors.Join(err, watch.end())
	}
	return watch, nil
}

// lasts waits for a span in which something is measured.
func lasts(ctx context.Context, span time.Duration) error {
	timer := time.NewTimer(span)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// during is the processor time that a program has in a span.
func (p *process) during(ctx context.Context, span time.Duration) (time.Duration, error) {
	before, err := p.worked()
	if err != nil {
		return 0, err
	}
	if err := lasts(ctx, span); err != nil {
		return 0, err
	}
	after, err := p.worked()
	return after - before, err
}

// openIdle measures a watch to which nothing happens.
func openIdle(ctx context.Context, lab *Lab) (Bench, error) {
	watch, err := overFleet(ctx, lab)
	if err != nil {
		return Bench{}, err
	}
	return Bench{
		Ours: Half{Value: func(ctx context.Context) (float64, error) {
			worked, err := watch.during(ctx, idleSpan)
			return worked.Seconds() / idleSpan.Seconds(), err
		}},
		Close: func(context.Context) error { return watch.end() },
	}, nil
}

// openLook measures what looking at everything costs.
func openLook(ctx context.Context, lab *Lab) (Bench, error) {
	watch, err := overFleet(ctx, lab)
	if err != nil {
		return Bench{}, err
	}
	return Bench{
		Ours: Half{Value: func(ctx context.Context) (float64, error) {
			if err := watch.hangup(); err != nil {
				return 0, err
			}
			worked, err := watch.during(ctx, lookSpan)
			return worked.Seconds(), err
		}},
		Close: func(context.Context) error { return watch.end() },
	}, nil
}

// openMemory measures the memory of a watch that has looked at everything.
func openMemory(ctx context.Context, lab *Lab, kind string) (Bench, error) {
	watch, err := overFleet(ctx, lab)
	if err != nil {
		return Bench{}, err
	}
	return Bench{
		Ours: Half{
			Before: func(ctx context.Context) error { return errors.Join(watch.hangup(), lasts(ctx, lookSpan)) },
			Value:  func(context.Context) (float64, error) { return watch.memory(kind) },
		},
		Close: func(context.Context) error { return watch.end() },
	}, nil
}

// watchOne makes a site with one machine, which runs under a watch.
func watchOne(ctx context.Context, lab *Lab, name string, flags ...string) (*site, twin, *process, error) {
	s, t, err := openOne(ctx, lab, name, false)
	if err != nil {
		return nil, twin{}, nil, err
	}
	watch, err := s.watch(flags...)
	if err != nil {
		return nil, twin{}, nil, err
	}
	if err := s.allRun(ctx, watch); err != nil {
		return nil, twin{}, nil, errors.Join(err, watch.end())
	}
	return s, t, watch, nil
}

// heard waits until somebody is connected to the machine's monitor for events.
// Asking it would take the place of whom it waits for.
func (s *site) heard(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	socket := s.layout.QMPSocket(name)
	for {
		table, err := os.ReadFile("/proc/net/unix")
		if err != nil {
			return fmt.Errorf("look who is connected to %s: %w", socket, err)
		}
		if connected(string(table), socket) {
			return nil
		}
		if err := lasts(ctx, askAgain); err != nil {
			return fmt.Errorf("wait for a watch to listen on %s: %w", socket, err)
		}
	}
}

// settled waits until a watch has listened to the machine for a while: it listens
// less to one that ends within a second again and again.
func (s *site) settled(ctx context.Context, name string) error {
	if err := s.heard(ctx, name); err != nil {
		return err
	}
	return errors.Join(lasts(ctx, settling), s.check(ctx))
}

// connected tells whether a table of sockets has a connection to a path.
func connected(table, path string) bool {
	const state, at = 5, 7
	const established = "03"
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) > at && f[at] == path && f[state] == established {
			return true
		}
	}
	return false
}

// kill kills the QEMU that a pid file names.
func kill(pidFile string) error {
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return fmt.Errorf("kill QEMU: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("kill QEMU: %s: %w", pidFile, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill QEMU, pid %d: %w", pid, err)
	}
	return nil
}

// victim is a raw machine to be killed, and the client that hears its end.
type victim struct {
	site   *site
	twin   twin
	script string
	client *process
}

// begin starts the machine, and the client.
func (v *victim) begin(ctx context.Context) error {
	if err := v.site.clear([]twin{v.twin}); err != nil {
		return err
	}
	if err := v.site.lab.run(ctx, nil, v.script); err != nil {
		return err
	}
	client, err := v.site.lab.begin(nil, v.site.lab.Rawclient, "end", v.twin.Socket)
	if err != nil {
		return err
	}
	v.client = client
	return client.await(ctx, 0, says("connected"), 1)
}

// die kills the machine, and waits until the client has heard it.
func (v *victim) die(ctx context.Context) error {
	if err := kill(filepath.Join(filepath.Dir(v.twin.Socket), "qemu.pid")); err != nil {
		return err
	}
	return v.client.await(ctx, 0, says("ended"), 1)
}

// end leaves no twin behind: it has the machine's uuid, and so maqet would have to
// take it for the machine.
func (v *victim) end(context.Context) error {
	return errors.Join(v.client.end(), v.site.clear([]twin{v.twin}))
}

func says(word string) func(string) bool { return func(line string) bool { return line == word } }

// openNotice compares how soon the end of a QEMU is known. Both write a line.
func openNotice(ctx context.Context, lab *Lab, folder string, line func(string) bool) (Bench, error) {
	// The backoff keeps what is measured free of a start.
	s, t, watch, err := watchOne(ctx, lab, folder, "--timeouts", "backoff=300ms,backoff-max=300ms")
	if err != nil {
		return Bench{}, err
	}
	script, err := s.script(t, false)
	if err != nil {
		return Bench{}, errors.Join(err, watch.end())
	}
	name := s.names[0]
	raw := &victim{site: s, twin: t, script: script}
	var mark int
	return Bench{
		Ours: Half{
			Before: func(ctx context.Context) error {
				err := s.settled(ctx, name)
				mark = watch.mark()
				return err
			},
			Do: func(ctx context.Context) error {
				if err := kill(s.layout.PIDFile(name)); err != nil {
					return err
				}
				return watch.await(ctx, mark, line, 1)
			},
			After: func(ctx context.Context) error { return watch.await(ctx, mark, changed(name, "Running"), 1) },
		},
		Raw:   Half{Before: raw.begin, Do: raw.die, After: raw.end},
		Close: func(ctx context.Context) error { return errors.Join(watch.end(), s.close(ctx)) },
	}, nil
}

// openRestart compares how soon a machine that was killed runs again.
func openRestart(ctx context.Context, lab *Lab) (Bench, error) {
	s, t, watch, err := watchOne(ctx, lab, "restart", "--timeouts", "backoff=1ms,backoff-max=1ms")
	if err != nil {
		return Bench{}, err
	}
	script, err := s.script(t, false)
	if err != nil {
		return Bench{}, errors.Join(err, watch.end())
	}
	name := s.names[0]
	raw := &victim{site: s, twin: t, script: script}
	var mark int
	return Bench{
		Ours: Half{
			Before: func(ctx context.Context) error {
				err := s.settled(ctx, name)
				mark = watch.mark()
				return err
			},
			Do: func(ctx context.Context) error {
				if err := kill(s.layout.PIDFile(name)); err != nil {
					return err
				}
				return watch.await(ctx, mark, func(line string) bool {
					return strings.Contains(line, `msg="machine started" vm=`+name+" ")
				}, 1)
			},
			After: s.check,
		},
		Raw: Half{
			Before: raw.begin,
			Do: func(ctx context.Context) error {
				if err := raw.die(ctx); err != nil {
					return err
				}
				return lab.run(ctx, nil, script)
			},
			After: raw.end,
		},
		Close: func(ctx context.Context) error { return errors.Join(watch.end(), s.close(ctx)) },
	}, nil
}

// openEdit measures the way of a change from the folder to QEMU. The machine is
// paused and continued in turn.
func openEdit(ctx context.Context, lab *Lab) (Bench, error) {
	s, _, watch, err := watchOne(ctx, lab, "edit")
	if err != nil {
		return Bench{}, err
	}
	name := s.names[0]
	ear, err := listenIn(s.layout.CLISocket(name))
	if err != nil {
		return Bench{}, errors.Join(err, watch.end())
	}
	path := filepath.Join(s.manifests, name+".yaml")
	// Besides the folder: what is written there is no change yet.
	fresh := filepath.Join(filepath.Dir(s.manifests), "fresh")
	paused := false
	return Bench{
		Ours: Half{
			Before: func(context.Context) error {
				paused = !paused
				text := fmt.Sprintf(board, name)
				if paused {
					text += "  powerState: Paused\n"
				}
				return os.WriteFile(fresh, []byte(text), 0o600)
			},
			Do: func(ctx context.Context) error {
				mark, command := ear.mark(), "cont"
				if paused {
					command = "stop"
				}
				// As editors save.
				if err := os.Rename(fresh, path); err != nil {
					return fmt.Errorf("save a manifest: %w", err)
				}
				return ear.await(ctx, mark, command)
			},
			After: func(ctx context.Context) error { return lasts(ctx, time.Second) },
		},
		Close: func(ctx context.Context) error { return errors.Join(watch.end(), ear.close(), s.close(ctx)) },
	}, nil
}

// openBoot compares the start of everything after a boot: neither processes nor
// a run dir are there, but disks and records are.
func openBoot(ctx context.Context, lab *Lab) (Bench, error) {
	s, err := lab.site("boot")
	if err != nil {
		return Bench{}, err
	}
	if err := s.boards(lab.Machines, false); err != nil {
		return Bench{}, err
	}
	if err := s.apply(ctx); err != nil {
		return Bench{}, err
	}
	twins, err := s.twins(ctx)
	if err != nil {
		return Bench{}, err
	}
	file, err := s.save("twins.json", twins)
	if err != nil {
		return Bench{}, err
	}
	var watch *process
	off := func(context.Context) error {
		var failed error
		if watch != nil {
			failed = watch.end()
			watch = nil
		}
		failed = errors.Join(failed, s.clear(twins))
		killBelow(s.layout.Run)
		return errors.Join(failed, os.RemoveAll(s.layout.Run))
	}
	return Bench{
		Ours: Half{
			Before: off,
			Do: func(ctx context.Context) (err error) {
				if watch, err = s.watch(); err != nil {
					return err
				}
				return s.allRun(ctx, watch)
			},
			After: s.check,
		},
		Raw: Half{
			Before: off,
			Do: func(ctx context.Context) error {
				return s.rawclient(ctx, "start", "-j", strconv.Itoa(startAtATime), "-f", file)
			},
		},
		Close: func(ctx context.Context) error { return errors.Join(off(ctx), s.close(ctx)) },
	}, nil
}
