package qemu

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/driver/qga"
)

func TestExec_inputTooLong_isRefusedBeforeAnything(t *testing.T) {
	r := newRig(t)
	_, err := r.Exec(t.Context(), "web", ExecRequest{Command: []string{"cat"}, Input: make([]byte, MaxExecInput+1)})
	if e := lifecycle(err); e == nil || !strings.Contains(e.Hint, "maqet cp") {
		t.Errorf("Exec = %v, want a remedy", err)
	}
}

func TestExec_guest_runsAndEndsPrograms(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", agentGuest(t, ""), agentProbe)
	r.start(vm, false)
	r.untilReady(vm)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()

	input := bytes.Repeat([]byte("maqet\n"), 100_000)
	result, err := r.Exec(ctx, "web", ExecRequest{Command: []string{"cat"}, Input: input})
	r.must(err)
	if !bytes.Equal(result.Out, input) || len(result.Err) > 0 || result.ExitCode != 0 || result.Signal != 0 || result.Truncated {
		t.Errorf("cat: %d bytes of %d, exit %d", len(result.Out), len(input), result.ExitCode)
	}
	result, err = r.Exec(ctx, "web", ExecRequest{Command: []string{"sh", "-c", "echo no >&2; kill -15 $$"}})
	r.must(err)
	if result.Signal != 15 || string(result.Err) != "no\n" {
		t.Errorf("killed: %+v", result)
	}

	// The agent is free while a long command runs, and the command goes on over a pause.
	type outcome struct {
		ExecResult
		err error
	}
	long := make(chan outcome, 1)
	go func() {
		result, err := r.Exec(ctx, "web", ExecRequest{Command: []string{"sh", "-c", "touch /tmp/began; until [ -e /tmp/go ]; do sleep 0.1; done; echo done"}})
		long <- outcome{result, err}
	}()
	for began := 1; began != 0; {
		result, err := r.Exec(ctx, "web", ExecRequest{Command: []string{"test", "-e", "/tmp/began"}})
		r.must(err)
		began = result.ExitCode
	}
	r.must(r.SetPaused(ctx, "web", true))
	if _, err := r.Exec(ctx, "web", ExecRequest{Command: []string{"true"}}); !errors.Is(err, ErrNotResponsive) {
		t.Errorf("Exec in a paused guest = %v", err)
	}
	r.must(r.SetPaused(ctx, "web", false))
	_, err = r.Exec(ctx, "web", ExecRequest{Command: []string{"touch", "/tmp/go"}})
	r.must(err)
	if o := <-long; o.err != nil || string(o.Out) != "done\n" {
		t.Errorf("the long command: %q, %v", o.Out, o.err)
	}

	// One that is given up is ended in the guest.
	brief, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	result, err = r.Exec(brief, "web", ExecRequest{Command: []string{"sh", "-c", "echo begun; exec sleep 1000"}})
	var given *GivenUpError
	if !errors.As(err, &given) || !given.Ended || given.PID == 0 || !errors.Is(err, context.DeadlineExceeded) || string(result.Out) != "begun\n" {
		t.Errorf("given up: %q, %v", result.Out, err)
	}

	// An agent that is restarted has forgotten what it ran.
	_, err = r.Exec(ctx, "web", ExecRequest{Command: []string{"sh", "-c", "kill -9 $PPID; sleep 1000"}})
	var refused *qga.Error
	if err == nil || errors.As(err, &given) || !errors.Is(err, qga.ErrAbsent) && !errors.As(err, &refused) && !errors.Is(err, qga.ErrClosed) {
		t.Errorf("the agent's end: %v", err)
	}
}
