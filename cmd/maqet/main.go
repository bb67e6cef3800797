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

// realMain runs one command under a context that the first SIGINT, SIGTERM or SIGHUP
// ends; a second signal ends the process at once, as people expect.
func realMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	env := stdEnvironment()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	env.outlive = endOnHangup(ctx, cancel)
	context.AfterFunc(ctx, stop)
	collectLater()
	return run(ctx, os.Args[1:], env)
}

// endOnHangup ends ctx when the terminal is closed, unless that is ignored, as under
// nohup: what was begun in a guest, such as a freeze, has to be ended in good order. Of
// the signals for one closed terminal, which may be several, all but the first are
// nothing. Calling outlive leaves the signal to the caller.
func endOnHangup(ctx context.Context, cancel context.CancelFunc) (outlive func()) {
	if signal.Ignored(syscall.SIGHUP) {
		return func() {}
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		select {
		case <-hangups:
			cancel()
		case <-ctx.Done():
		}
	}()
	return func() { signal.Stop(hangups) }
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
