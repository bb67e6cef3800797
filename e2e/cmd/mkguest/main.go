// Command mkguest builds the tiny Linux guest of the tests and of `make demo`.
//
//	go run ./e2e/cmd/mkguest -o build/guest
//	go run ./e2e/cmd/mkguest -o build/guest-generic -generic
//	go run ./e2e/cmd/mkguest -o build/guest -boots kvm
//
// With -boots it also boots the guest under that accelerator and fails when the
// guest does not come up in time: a /dev/kvm that opens does not yet run Linux.
package main

import (
	"context"
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
	timeout := flag.Duration("timeout", 10*time.Second, "how long that boot may take")
	flag.Parse()
	if err := run(*out, *generic, *boots, *timeout); err != nil {
		fmt.Fprintln(os.Stderr, "mkguest:", err)
		os.Exit(1)
	}
}

func run(out string, generic bool, accel string, timeout time.Duration) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	flavour := guest.Cloud()
	if generic {
		flavour = guest.Generic()
	}
	g, err := guest.Build(ctx, out, flavour)
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
