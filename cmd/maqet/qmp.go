package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/driver/qmp"
)

func newQMP(a *app) *cobra.Command {
	var (
		args      []string
		jsonArgs  string
		dangerous bool
	)
	cmd := &cobra.Command{
		Use:   "qmp VM COMMAND",
		Short: "Send one QMP command to a machine's QEMU",
		Long: `Send one QMP command to a machine's QEMU, from any process, and print its answer
as JSON. What a command changes in the machine counts as drift for apply.

Values of --arg are JSON where they read as such (true, 42, {"a": 1}), else
text. Commands that can end QEMU, corrupt a guest or confuse maqet need
--allow-dangerous.`,
		Example: `  maqet qmp web query-status
  maqet qmp web query-block --json '{}'
  maqet qmp web qom-get --arg path=/machine --arg property=type`,
		Args:              exactArgs("a machine", "a command"),
		ValidArgsFunction: completeMachines(a, 1),
		RunE: func(cmd *cobra.Command, positional []string) error {
			name, err := machineName(positional[0])
			if err != nil {
				return err
			}
			arguments, err := qmpArguments(args, jsonArgs)
			if err != nil {
				return err
			}
			if isDangerous(positional[1]) && !dangerous {
				return usagef("%s can end QEMU, harm the guest or confuse maqet; if you mean it, add --allow-dangerous", positional[1])
			}
			return runQMP(cmd.Context(), a, name, positional[1], arguments)
		},
	}
	cmd.Flags().StringArrayVar(&args, "arg", nil, "argument as `NAME=VALUE`; may be given again")
	cmd.Flags().StringVar(&jsonArgs, "json", "", "all arguments as one JSON `OBJECT`")
	cmd.Flags().BoolVar(&dangerous, "allow-dangerous", false, "permit commands that can end QEMU or harm the guest")
	return cmd
}

// isDangerous tells whether a command can end QEMU, corrupt the guest, read its
// memory into files, or change what maqet relies on.
func isDangerous(command string) bool {
	switch command {
	case "quit", "human-monitor-command", "device-list-properties", "snapshot-load", "netdev_add",
		"getfd", "add-fd", "set-action", "object-add", "dump-guest-memory", "memsave", "pmemsave":
		return true
	}
	for _, prefix := range []string{"migrate", "xen-", "x-"} {
		if strings.HasPrefix(command, prefix) {
			return true
		}
	}
	return false
}

func qmpArguments(pairs []string, object string) (map[string]any, error) {
	if len(pairs) > 0 && object != "" {
		return nil, usagef("give --arg or --json, not both")
	}
	if object != "" {
		var all map[string]any
		dec := json.NewDecoder(strings.NewReader(object))
		dec.UseNumber()
		if err := dec.Decode(&all); err != nil || all == nil || dec.More() {
			return nil, usagef("--json %s: not one JSON object", object)
		}
		return all, nil
	}
	if len(pairs) == 0 {
		return nil, nil //nolint:nilnil // no arguments is a valid answer, sent as none
	}
	all := make(map[string]any, len(pairs))
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, usagef("--arg %s: must be NAME=VALUE", pair)
		}
		if _, twice := all[name]; twice {
			return nil, usagef("--arg %s is given twice", name)
		}
		all[name] = jsonOrText(value)
	}
	return all, nil
}

func jsonOrText(text string) any {
	var v any
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil || dec.More() {
		return text
	}
	return v
}

func runQMP(ctx context.Context, a *app, name, command string, arguments map[string]any) error {
	r, err := a.rooms()
	if err != nil {
		return err
	}
	if err := mustKnow(ctx, a, []string{name}, "qmp"); err != nil {
		return err
	}
	p := newProgress(a)
	p.begin("vm/"+name, "waiting for the answer to "+command)
	defer p.stop()
	var answer json.RawMessage
	err = r.driver.Visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		var args any
		if arguments != nil {
			args = arguments
		}
		ctx, cancel := context.WithTimeout(ctx, r.timing.Query)
		defer cancel()
		return c.Do(ctx, command, args, &answer)
	})
	p.stop()
	if command == "quit" && errors.Is(err, qmp.ErrClosed) {
		// QEMU may end before its answer is read; that is what was asked for.
		answer, err = json.RawMessage("{}"), nil
	}
	if err != nil {
		return fmt.Errorf("qmp vm/%s: %w", name, err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, answer, "", "  "); err != nil {
		return fmt.Errorf("qmp vm/%s: answer of %s: %w", name, command, err)
	}
	fmt.Fprintln(a.env.out, pretty.String())
	return nil
}
