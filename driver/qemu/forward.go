package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// Forward makes the port forwards of a running machine's user networks those of the
// spec, for the nics that are there already. It goes by the forwards that QEMU has, and
// the launch record has the new ones once QEMU has confirmed them: whoever was cut off
// in between does it again.
func (d *Driver) Forward(ctx context.Context, vm *manifest.VirtualMachine) error {
	name := vm.Metadata.Name
	err := d.Visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		record, err := d.readLaunched(name)
		if err != nil || record == nil {
			return errors.Join(err, errNoLaunchRecord(record))
		}
		nics := forwarding(&record.Spec, &vm.Spec)
		if err := setForwards(ctx, c, nics); err != nil {
			return err
		}
		return d.updateLaunched(name, record, func(l *driver.Launched) {
			for _, n := range nics {
				part := driver.Part{List: driver.ListNICs, Name: n.Name}
				l.Spec = part.Of(l.Spec, &manifest.VirtualMachineSpec{NICs: []manifest.NIC{n}})
			}
		})
	})
	if err == nil {
		d.log.LogAttrs(ctx, slog.LevelInfo, "forwards changed", slog.String("vm", name))
	}
	return asOp("change the port forwards of", name, err)
}

// forwarding are the nics on user networks that the process has, with the forwards
// that they should have.
func forwarding(has, want *manifest.VirtualMachineSpec) []manifest.NIC {
	var all []manifest.NIC
	for _, n := range has.NICs {
		i := slices.IndexFunc(want.NICs, func(w manifest.NIC) bool { return w.Name == n.Name })
		if i >= 0 && n.User != nil && want.NICs[i].User != nil {
			n.User = want.NICs[i].User
			all = append(all, n)
		}
	}
	return all
}

// setForwards removes all that are too many, and only then adds those that lack: a port
// may go from one nic to another. If one cannot be added, those that were removed are
// put back as far as that goes.
func setForwards(ctx context.Context, c *qmp.Conn, nics []manifest.NIC) error {
	var removed, added []string
	var text string
	if err := hmp(ctx, c, "info usernet", &text); err != nil {
		return err
	}
	has := parseForwards(text)
	for _, n := range nics {
		want, id := map[manifest.Forward]bool{}, NetdevID(n.Name)
		for _, text := range n.User.Forward {
			f, err := manifest.ParseForward(text)
			if err != nil {
				return err
			}
			want[listening(f)] = true
		}
		for _, f := range has[id] {
			if !want[f] {
				removed = append(removed, id+" "+ForwardRule(f))
			}
			delete(want, f)
		}
		for _, text := range n.User.Forward {
			if f, err := manifest.ParseForward(text); err == nil && want[listening(f)] {
				added = append(added, id+" "+ForwardRule(f))
				delete(want, listening(f))
			}
		}
	}
	for i, rule := range removed {
		if err := removeForward(ctx, c, rule); err != nil {
			return errors.Join(err, addForwards(ctx, c, removed[:i]))
		}
	}
	if err := addForwards(ctx, c, added); err != nil {
		return errors.Join(err, addForwards(context.WithoutCancel(ctx), c, removed))
	}
	return nil
}

// listening is a forward as QEMU shows it.
func listening(f manifest.Forward) manifest.Forward {
	if f.HostAddr == "" {
		f.HostAddr = "0.0.0.0"
	}
	return f
}

// addForwards adds rules, each behind the netdev's id. QEMU answers nothing when it did.
func addForwards(ctx context.Context, c *qmp.Conn, rules []string) error {
	for _, rule := range rules {
		var text string
		if err := hmp(ctx, c, "hostfwd_add "+rule, &text); err != nil {
			return err
		}
		if text = strings.TrimSpace(text); text != "" {
			return &qmp.Error{Command: "hostfwd_add", Class: qmp.ClassGenericError, Desc: text + "; is the port in use on this host?"}
		}
	}
	return nil
}

// removeForward removes a rule. One that is not there is as good.
func removeForward(ctx context.Context, c *qmp.Conn, rule string) error {
	// It is named by where it listens.
	rule, _, _ = strings.Cut(rule, "-:")
	var text string
	if err := hmp(ctx, c, "hostfwd_remove "+rule, &text); err != nil {
		return err
	}
	if strings.Contains(text, "removed") || strings.Contains(text, "not found") {
		return nil
	}
	return &qmp.Error{Command: "hostfwd_remove", Class: qmp.ClassGenericError, Desc: strings.TrimSpace(text)}
}

// hmp gives a command of the monitor for people, which alone knows of forwards. What is
// wrong with it is in the text of its answer.
func hmp(ctx context.Context, c *qmp.Conn, line string, text *string) error {
	if err := c.Do(ctx, "human-monitor-command", map[string]any{"command-line": line}, text); err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	return nil
}

// parseForwards reads the forwards by netdev out of the answer to "info usernet":
//
//	Hub -1 (lan.net):
//	  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
//	  TCP[HOST_FORWARD]  19       127.0.0.1 22022       10.0.2.15    22     0     0
func parseForwards(text string) map[string][]manifest.Forward {
	all := map[string][]manifest.Forward{}
	id := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if head, ok := strings.CutSuffix(line, "):"); ok {
			_, id, _ = strings.Cut(head, "(")
			continue
		}
		words := strings.Fields(line)
		if len(words) < 6 {
			continue
		}
		proto, ok := strings.CutSuffix(words[0], "[HOST_FORWARD]")
		if !ok {
			continue
		}
		f := manifest.Forward{Proto: strings.ToLower(proto), HostAddr: words[2]}
		if f.HostAddr == "*" {
			f.HostAddr = "0.0.0.0"
		}
		host, err := strconv.Atoi(words[3])
		guest, errGuest := strconv.Atoi(words[5])
		if err == nil && errGuest == nil {
			f.HostPort, f.GuestPort = host, guest
			all[id] = append(all[id], f)
		}
	}
	return all
}
