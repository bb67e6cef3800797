package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/driver/keyboard"
)

// keyStep is how long a press or release of a key takes without --delay.
const keyStep = 20 * time.Millisecond

// maxText is how much text is typed at once at most, in bytes.
const maxText = 64 << 10

func newKeys(a *app) *cobra.Command {
	var hold time.Duration
	cmd := &cobra.Command{
		Use:   "keys VM KEYS...",
		Short: "Press keys on a guest's keyboard",
		Long: `Press keys on a guest's keyboard, as somebody who sits before it would. Keys that are
pressed together are joined by -, as in ctrl-alt-delete; several such are pressed one
after the other. Keys are called as QEMU calls them (QKeyCode), such as f2, ret or
meta_l, or by the usual other names: enter, escape, space, del, super, pageup.

A key is where it is on a keyboard of the United States; what the guest takes it for is
up to the layout that it has. QEMU tells that it gave a key to the keyboard; that the
guest has read it, nobody can see but by what the guest does.

With --hold all keys go down at once and stay there so long. Should maqet be killed
meanwhile, they stay down until they are pressed again.`,
		Example: `  maqet keys web ctrl-alt-delete
  maqet keys web ctrl-alt-f2 enter
  maqet keys web esc --hold 2s`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("maqet keys needs a machine and keys, such as: maqet keys web ctrl-alt-delete")
			}
			return nil
		},
		ValidArgsFunction: completeKeys(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runKeys(cmd.Context(), a, args[0], args[1:], hold)
		},
	}
	cmd.Flags().DurationVar(&hold, "hold", 0, "how long the keys stay down (0: as long as a tap takes)")
	return cmd
}

// completeKeys completes a machine, then the last key of a combination.
func completeKeys(a *app) cobra.CompletionFunc {
	machines := completeMachines(a, 1)
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return machines(cmd, args, prefix)
		}
		before := prefix[:strings.LastIndexAny(prefix, "-+")+1]
		var fit []string
		for _, name := range keyboard.Codes() {
			if strings.HasPrefix(before+name, prefix) {
				fit = append(fit, before+name)
			}
		}
		return fit, cobra.ShellCompDirectiveNoFileComp
	}
}

func runKeys(ctx context.Context, a *app, machine string, chords []string, hold time.Duration) error {
	name, err := machineName(machine)
	if err != nil {
		return err
	}
	if hold < 0 {
		return usagef("--hold %s: must not be negative", hold)
	}
	var strokes []keyboard.Stroke
	for _, chord := range chords {
		stroke, err := keyboard.ParseChord(chord)
		if err != nil {
			return &usageError{err}
		}
		strokes = append(strokes, stroke)
	}
	r, err := a.rooms()
	if err != nil {
		return err
	}
	if err := mustKnow(ctx, a, []string{name}, "keys"); err != nil {
		return err
	}
	if hold == 0 {
		_, err = r.driver.Press(ctx, name, strokes, keyStep)
		return err
	}
	for _, stroke := range strokes {
		if err := r.driver.Hold(ctx, name, stroke, hold); err != nil {
			return err
		}
	}
	return nil
}

// typeFlags are the flags of type.
type typeFlags struct {
	layout       string
	enter, stdin bool
	delay        time.Duration
}

func newType(a *app) *cobra.Command {
	var flags typeFlags
	cmd := &cobra.Command{
		Use:   "type VM TEXT",
		Short: "Type a text on a guest's keyboard",
		Long: `Type a text on a guest's keyboard: into a login, the console of an installer, or for
the password of an encrypted disk, where nothing else can be talked to. An end of line
is Enter.

--layout is the layout that the guest has; the names are those of QEMU's keymaps, such
as en-us, en-gb (or gb), de, fr and es. A text with characters that the layout does not
have is refused as a whole, and they are named. Where the guest has another layout, or
Caps Lock on, it reads something else.

QEMU tells that it gave a key to the keyboard, and not whether the guest has read it: a
guest that is busy loses keys, and --delay gives it more time. A secret is better given
by --stdin than as TEXT, which everybody on this host can see.`,
		Example: `  maqet type web root --enter
  maqet type web 'GRUB_CMDLINE="quiet"' --layout de --delay 50ms
  printf secret | maqet type web --stdin --enter`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usagef("maqet type needs a machine")
			case len(args) == 1 && !flags.stdin:
				return usagef("maqet type needs a text, or --stdin")
			case len(args) > 1 && flags.stdin:
				return usagef("give a text or --stdin, not both")
			case len(args) > 2:
				return usagef("maqet type got one argument too many: %q; quote a text of several words", args[2])
			default:
				return nil
			}
		},
		ValidArgsFunction: completeMachines(a, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runType(cmd.Context(), a, args, flags)
		},
	}
	cmd.Flags().StringVar(&flags.layout, "layout", keyboard.DefaultLayout, "the guest's `LAYOUT`, a keymap of QEMU")
	cmd.Flags().BoolVar(&flags.enter, "enter", false, "press Enter after the text")
	cmd.Flags().BoolVar(&flags.stdin, "stdin", false, "type what is read from standard input")
	cmd.Flags().DurationVar(&flags.delay, "delay", keyStep, "how long each press and each release of a key takes")
	mustComplete(cmd, "layout", []string{"de", "en-gb", "en-us", "es", "fr"})
	return cmd
}

// mustComplete gives a flag its fixed completions.
func mustComplete(cmd *cobra.Command, flag string, values []string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is not defined: a bug that the first run of any command shows
	}
}

func runType(ctx context.Context, a *app, args []string, flags typeFlags) error {
	name, err := machineName(args[0])
	if err != nil {
		return err
	}
	if flags.delay < time.Millisecond || flags.delay > time.Minute {
		return usagef("--delay %s: must be from 1ms to 1m", flags.delay)
	}
	r, err := a.rooms()
	if err != nil {
		return err
	}
	if err := mustKnow(ctx, a, []string{name}, "type"); err != nil {
		return err
	}
	text, err := textToType(ctx, a.env.in, args[1:])
	if err != nil {
		return err
	}
	if flags.enter {
		text += "\n"
	}
	folders, err := r.driver.DataFolders(ctx, name)
	if err != nil {
		return err
	}
	layout, err := keyboard.ReadLayout(folders, flags.layout)
	if errors.Is(err, keyboard.ErrNoLayout) {
		return usagef("--layout: %w; there are: %s", err, strings.Join(keyboard.Layouts(folders), " "))
	}
	if err != nil {
		return err
	}
	characters, err := layout.Strokes(text)
	if err != nil {
		return usagef("nothing is typed: %w; --layout names another one", err)
	}
	var strokes []keyboard.Stroke
	ends := make([]int, 0, len(characters)) // how many strokes are pressed when each is typed
	for _, c := range characters {
		strokes = append(strokes, c...)
		ends = append(ends, len(strokes))
	}
	p := newProgress(a)
	p.begin("vm/"+name, fmt.Sprintf("typing %s", describeCount(len(characters), "character")))
	done, err := r.driver.Press(ctx, name, strokes, flags.delay)
	p.stop()
	if err != nil && done > 0 {
		typed := 0
		for typed < len(ends) && ends[typed] <= done {
			typed++
		}
		err = fmt.Errorf("%d of %d characters are typed for certain: %w", typed, len(ends), err)
	}
	return err
}

// textToType is the text that was given, or else read.
func textToType(ctx context.Context, in io.Reader, given []string) (string, error) {
	if len(given) > 0 {
		if len(given[0]) > maxText {
			return "", usagef("the text is longer than %d bytes", maxText)
		}
		return given[0], nil
	}
	all, err := readInput(ctx, io.LimitReader(in, maxText+1))
	if err == nil && len(all) > maxText {
		err = usagef("the text is longer than %d bytes", maxText)
	}
	return string(all), err
}
