package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
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
	collectLater()
	return run(ctx, os.Args[1:], stdEnvironment())
}

// gcPercent is how much garbage a command lets lie, in percent of what it needs;
// Go's own is 100. Most commands are over before a collection would pay: get of 50
// machines is a tenth faster. What lies about is bounded: some 30 MB for small
// commands, 50 MB for 2000 manifests.
const gcPercent = 800

// collectLater makes garbage collection rarer, unless GOGC says how often it is
// wanted.
func collectLater() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// collectSoon makes garbage collection as frequent as for any long-lived process.
func collectSoon() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(100)
	}
}
