package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/reconcile"
)

// systemd tells the service manager how a watch is (sd_notify(3)). Without one
// it tells nobody.
type systemd struct {
	log *slog.Logger
	// pause is how often the watchdog is fed; 0 for never.
	pause time.Duration

	mu    sync.Mutex
	ready bool
	// last is what was told last, so that nothing is told twice.
	last string
}

func newSystemd(getenv func(string) string, log *slog.Logger) *systemd {
	s := &systemd{log: log}
	if getenv("NOTIFY_SOCKET") == "" {
		return s
	}
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the service manager's watchdog is not understood", "err", err)
	}
	s.pause = interval / 2
	return s
}

// status is told by the controller how it is.
func (s *systemd) status(c reconcile.ControllerStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := "STATUS=" + statusLine(c)
	if !s.ready && !c.Synced.IsZero() {
		s.ready = true
		state = daemon.SdNotifyReady + "\n" + state
	}
	if state != s.last {
		s.last = state
		s.tell(state)
	}
}

// statusLine is the one line that systemctl status shows.
func statusLine(c reconcile.ControllerStatus) string {
	parts := []string{describeCount(c.Machines, "machine"), fmt.Sprintf("%d Ready", c.Ready)}
	if n := len(c.Faults); n > 0 {
		parts = append(parts, describeCount(n, "fault")+" in the manifests")
	}
	for _, condition := range c.Conditions {
		parts = append(parts, condition.Type)
	}
	return strings.ReplaceAll(strings.Join(parts, ", "), "\n", " ")
}

// reloading tells that everything is looked at again; the next status ends it.
func (s *systemd) reloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		s.log.Warn("the monotonic clock cannot be read", "err", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/int64(time.Microsecond)))
	s.ready, s.last = false, ""
}

func (s *systemd) stopping() { s.tell(daemon.SdNotifyStopping) }

// feed keeps the watchdog fed while ctx lasts and alive returns without an error.
// While alive does not return nothing is fed, and the service manager starts a
// watch that does not supervise any more anew.
func (s *systemd) feed(ctx context.Context, alive func(context.Context) error) error {
	if s.pause == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	tick := time.NewTicker(s.pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if err := alive(ctx); err != nil {
				return err
			}
			s.tell(daemon.SdNotifyWatchdog)
		}
	}
}

func (s *systemd) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.log.Warn("the service manager could not be told", "err", err)
	}
}
