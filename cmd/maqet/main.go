package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // schedules name time zones, and a host may have none
)

func main() {
	os.Exit(realMain())
}

// realMain runs one command under a context that the first SIGINT or SIGTERM
// ends; a second signal ends the process at once, as people expect.
func realMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], stdEnvironment())
}
