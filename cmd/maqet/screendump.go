package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/driver/qemu"
	"github.com/maqet/maqet/internal/durable"
)

const (
	// screenEvery is how often a screen is looked at while it is waited for.
	screenEvery = 250 * time.Millisecond
	// screenStill is how long a screen must show the same to count as stable.
	screenStill = 2 * time.Second
)

// screenFlags are the flags of screendump.
type screenFlags struct {
	output         string
	change, stable bool
	timeout        time.Duration
}

func newScreendump(a *app) *cobra.Command {
	var flags screenFlags
	cmd := &cobra.Command{
		Use:   "screendump VM -o FILE",
		Short: "Take a picture of a guest's screen",
		Long: `Take a picture of what a guest's graphics card shows. The name of the file says the
format, .png or .ppm; - is standard output, as PNG. The file appears when it is whole,
with the mode 0600, and takes the place of one that was there.

The machine needs a graphics card, such as devices: [{name: vga, driver: VGA}]; nothing
else looks at it or listens.

--wait-change waits until the screen shows something else than at first, --wait-stable
until it has shown the same for 2s; with both, until it has changed and is stable then.
A cursor that blinks is no change. When --timeout runs out before, the exit code is 2 and
no picture is written.`,
		Example: `  maqet screendump web -o screen.png
  maqet screendump web -o screen.ppm --wait-stable --timeout 1m
  maqet screendump web -o - >screen.png`,
		Args:              exactArgs("a machine"),
		ValidArgsFunction: completeMachines(a, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runScreendump(cmd.Context(), a, args[0], flags)
		},
	}
	cmd.Flags().StringVarP(&flags.output, "output", "o", "", "the `FILE` to write, .png or .ppm, or - for standard output")
	cmd.Flags().BoolVar(&flags.change, "wait-change", false, "wait until the screen shows something else")
	cmd.Flags().BoolVar(&flags.stable, "wait-stable", false, "wait until the screen shows the same for 2s")
	cmd.Flags().DurationVar(&flags.timeout, "timeout", time.Minute, "how long to wait for the screen")
	if err := cmd.MarkFlagFilename("output", "png", "ppm"); err != nil {
		panic(err) // the flag is not defined: a bug that the first run of any command shows
	}
	return cmd
}

// checkOutput checks that a file's name asks for a format.
func checkOutput(path string, tty bool) error {
	switch ending := strings.ToLower(filepath.Ext(path)); {
	case path == "":
		return usagef("maqet screendump needs -o FILE")
	case path == standard && tty:
		return usagef("-o - writes a picture, which a terminal cannot show; redirect it")
	case path == standard, ending == ".png", ending == ".ppm":
		return nil
	default:
		return usagef("-o %s: the name must end in .png or .ppm", path)
	}
}

// takePicture takes a picture in the format that a file's name asks for.
func takePicture(ctx context.Context, d *qemu.Driver, name, path string) ([]byte, error) {
	picture, err := d.Screendump(ctx, name)
	if err != nil {
		return nil, err
	}
	if strings.EqualFold(filepath.Ext(path), ".ppm") {
		return picture.PPM(), nil
	}
	return picture.PNG()
}

func runScreendump(ctx context.Context, a *app, machine string, flags screenFlags) error {
	name, err := machineName(machine)
	if err != nil {
		return err
	}
	if err := checkOutput(flags.output, a.env.outTTY); err != nil {
		return err
	}
	if flags.timeout <= 0 {
		return usagef("--timeout %s: must be positive", flags.timeout)
	}
	r, err := a.rooms()
	if err != nil {
		return err
	}
	if err := mustKnow(ctx, a, []string{name}, "screendump"); err != nil {
		return err
	}
	if flags.change || flags.stable {
		if err := awaitScreen(ctx, a, r.driver, name, flags); err != nil {
			return err
		}
	}
	picture, err := takePicture(ctx, r.driver, name, flags.output)
	if err != nil {
		return err
	}
	if flags.output == standard {
		_, err = a.env.out.Write(picture)
		return err
	}
	if err := durable.WriteFile(flags.output, picture, defaultMode); err != nil {
		return fmt.Errorf("vm/%s: keep the picture: %w", name, err)
	}
	return nil
}

// awaitScreen waits until the screen has changed, is stable, or both.
func awaitScreen(ctx context.Context, a *app, d *qemu.Driver, name string, flags screenFlags) error {
	p := newProgress(a)
	p.begin("vm/"+name, "waiting for the screen")
	defer p.stop()
	waiting, cancel := context.WithTimeout(ctx, flags.timeout)
	defer cancel()
	shown, err := d.Screendump(waiting, name)
	changed, since := !flags.change, time.Now()
	for err == nil && (!changed || flags.stable && time.Since(since) < screenStill) {
		var now *qemu.Picture
		if now, err = waitAndLook(waiting, d, name); err == nil && !shown.Same(now) {
			shown, changed, since = now, true, time.Now()
		}
	}
	p.stop()
	if err != nil && ctx.Err() == nil && errors.Is(waiting.Err(), context.DeadlineExceeded) {
		wanted := "change"
		if changed {
			wanted = "stand still"
		}
		return &outcomeError{exitPending, fmt.Sprintf("vm/%s: the screen did not %s within %s; --timeout gives it longer", name, wanted, flags.timeout)}
	}
	return err
}

// waitAndLook takes a picture after a while.
func waitAndLook(ctx context.Context, d *qemu.Driver, name string) (*qemu.Picture, error) {
	timer := time.NewTimer(screenEvery)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return d.Screendump(ctx, name)
	}
}
