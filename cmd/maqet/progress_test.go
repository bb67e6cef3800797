package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maqet/maqet/reconcile"
)

// pipes is an environment that nobody looks at.
func pipes() (environment, *bytes.Buffer, *bytes.Buffer) {
	var out, errs bytes.Buffer
	return environment{out: &out, err: &errs, getenv: func(string) string { return "" }}, &out, &errs
}

// seat is an environment of a person before a terminal.
func seat() (environment, *terminal) {
	term := newTerminal(60, 24)
	return environment{out: term, err: term, outTTY: true, errTTY: true, size: term.size, getenv: func(string) string { return "" }}, term
}

// pass lets time pass in a bubble, and everything happen that was due.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a bubble of synctest time is not real
	synctest.Wait()
}

func begins(vm, message string) reconcile.Event {
	return reconcile.Event{Machine: vm, Message: message}
}

func done(vm, message string) reconcile.Event {
	return reconcile.Event{Machine: vm, Message: message, Done: true}
}

func TestProgress_shortStep_isPrintedOnlyWhenDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env, out, errs := pipes()
		p := newProgress(&app{env: env})
		p.report(begins("web", "starting"))
		pass(patience / 2)
		p.report(done("web", "started, pid 7"))
		p.stop()
		if out.String() != "vm/web started, pid 7\n" || errs.Len() != 0 {
			t.Errorf("stdout %q, stderr %q", out, errs)
		}
	})
}

func TestProgress_longWaitInAPipe_isToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env, out, errs := pipes()
		p := newProgress(&app{env: env})
		for range 5 {
			// An engine that looks again begins the same wait again.
			p.report(begins("web", "waiting for the guest"))
			pass(10 * patience)
		}
		p.stop()
		if out.Len() != 0 || errs.String() != "vm/web waiting for the guest ...\n" {
			t.Errorf("stdout %q, stderr %q", out, errs)
		}
	})
}

func TestProgress_longWaitOnATerminal_isALiveLineThatVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env, term := seat()
		p := newProgress(&app{env: env})
		p.report(begins("web", "waiting"))
		p.report(begins("db", "waiting"))
		pass(3*time.Second + beat/2)
		if got := term.seen(); got != "vm/db waiting ... 3s\nvm/web waiting ... 3s" {
			t.Errorf("while waiting the terminal shows\n%s", got)
		}
		p.report(done("web", "Ready"))
		if got := term.seen(); got != "vm/web Ready\nvm/db waiting ... 3s" {
			t.Errorf("after one is done the terminal shows\n%s", got)
		}
		p.report(reconcile.Event{Machine: "db", Err: errors.New("no")})
		p.stop()
		if got := term.seen(); got != "vm/web Ready" {
			t.Errorf("at the end the terminal shows\n%s", got)
		}
	})
}

func TestProgress_whatConcernsAll_isOverWithTheFirstEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env, term := seat()
		p := newProgress(&app{env: env})
		p.begin(everything, "looking")
		pass(2*patience + beat/2)
		if got := term.seen(); got != "maqet looking ... 2s" {
			t.Errorf("while looking the terminal shows %q", got)
		}
		p.report(done("web", "started"))
		if got := term.seen(); got != "vm/web started" {
			t.Errorf("then the terminal shows %q", got)
		}
		p.stop()
	})
}

func TestProgress_endedSubject_isNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env, term := seat()
		p := newProgress(&app{env: env})
		p.beginAll([]string{"db", "web"})
		p.end("vm/db")
		pass(patience + beat)
		if got := term.seen(); !strings.HasPrefix(got, "vm/web waiting for its turn") || strings.Contains(got, "vm/db") {
			t.Errorf("the terminal shows %q", got)
		}
		p.stop()
	})
}

func TestProgress_stopped_staysSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env, out, errs := pipes()
		p := newProgress(&app{env: env})
		p.report(begins("web", "starting"))
		p.stop()
		p.report(begins("web", "starting"))
		pass(time.Minute)
		if out.Len()+errs.Len() != 0 {
			t.Errorf("stdout %q, stderr %q", out, errs)
		}
	})
}

func TestProgress_verbose_leavesTheTerminalToTheLog(t *testing.T) {
	env, _ := seat()
	if p := newProgress(&app{env: env, globals: globals{verbose: true}}); p.screen != nil {
		t.Error("live lines would be drawn over log lines")
	}
}
