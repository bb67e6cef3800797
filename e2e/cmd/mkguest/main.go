// Command mkguest builds the tiny Linux guest of the tests and of `make demo`.
//
//	go run ./e2e/cmd/mkguest -o build/guest
//	go run ./e2e/cmd/mkguest -o build/guest-generic -generic
//	go run ./e2e/cmd/mkguest -o build/guest -boots kvm
//	go run ./e2e/cmd/mkguest -o build/guest -agent
//
// With -boots it also boots the guest under that accelerator and fails when the
// guest does not come up in time: a /dev/kvm that opens does not yet run Linux.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/maqet/maqet/e2e/internal/guest"
)

func main() {
	out := flag.String("o", "build/guest", "folder for the guest")
	generic := flag.Bool("generic", false, "with Debian's kernel for any computer instead of that for the cloud")
	boots := flag.String("boots", "", "also boot the guest under this accelerator (kvm or tcg)")
	agent := flag.Bool("agent", false, "build the guest (the cloud kernel's) with Debian's guest agent as well")
	timeout := flag.Duration("timeout", 10*time.Second, "how long that boot may take")
	flag.Parse()
	if err := run(*out, *generic, *agent, *boots, *timeout); err != nil {
		fmt.Fprintln(os.Stderr, "mkguest:", err)
		os.Exit(1)
	}
}

func run(out string, generic, agent bool, accel string, timeout time.Duration) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	flavour := guest.Cloud()
	if generic {
		flavour = guest.Generic()
	}
	if agent && generic {
		return errors.New("-agent and -generic: the agent is in the guest with the cloud kernel only")
	}
	build := func(ctx context.Context, out string) (guest.Guest, error) { return guest.Build(ctx, out, flavour) }
	if agent {
		build = guest.BuildAgent
	}
	g, err := build(ctx, out)
	if err != nil {
		return err
	}
	if accel == "" {
		fmt.Println(g.Kernel)
		fmt.Println(g.Initrd)
		return nil
	}
	start := time.Now()
	if err := g.BootsUnder(ctx, accel, timeout); err != nil {
		return err
	}
	fmt.Printf("the tiny guest boots under %s (%.1f s)\n", accel, time.Since(start).Seconds())
	return nil
}
