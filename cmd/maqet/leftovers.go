package main

import (
	"errors"
	"fmt"

	"github.com/maqet/maqet/reconcile"
)

// printLeftovers prints what a machine's result says besides its steps: why it
// failed, what is wrong, what is owed.
func printLeftovers(env environment, r reconcile.Result) {
	if r.Err != nil {
		printResultError(env, r.Machine, r.Err)
	}
	for _, problem := range r.Plan.Problems {
		if r.Err != nil && problem.Err != nil {
			continue
		}
		printProblem(env, r.Machine, problem)
	}
	if r.Degraded && r.Err == nil {
		printDegraded(env, r)
	}
	if r.Plan.Held != nil {
		announce(env, r.Machine, "%s", describeHold(r.Machine, r.Plan.Held))
	}
	for _, c := range r.Plan.Changes {
		if c.Pending {
			announce(env, r.Machine, "pending: %s", describeChange(c))
		}
	}
	if owesRestart(r.Plan) {
		announce(env, r.Machine, "needs a restart for that: maqet restart %s, or apply with --allow-restart", r.Machine)
	}
}

// interruptedText is the last word of a command that was interrupted.
const interruptedText = "Interrupted. What is printed as done was done and observed; guests keep running."

// printResultError says why a machine's convergence stopped short. An
// interruption is no fault of the machine: what was not done is said instead.
func printResultError(env environment, machine string, err error) {
	word := ""
	switch {
	case errors.Is(err, reconcile.ErrInterrupted):
		word = "interrupted"
	case errors.Is(err, reconcile.ErrTimedOut):
		word = "the time ran out"
	default:
		printError(env, err)
		return
	}
	if stopped, ok := errors.AsType[*reconcile.Error](err); ok {
		if stopped.Detail != "" {
			word += ": " + stopped.Detail
		}
		if stopped.Hint != "" {
			word += "; " + stopped.Hint
		}
	}
	fmt.Fprintf(env.err, "vm/%s %s\n", machine, word)
}

// printDegraded says why a machine that was waited for is not Ready.
func printDegraded(env environment, r reconcile.Result) {
	text := "is not Ready: it is " + string(r.Status.Phase)
	for _, c := range r.Status.Conditions {
		if c.Type == "Ready" {
			text = "is not Ready: " + c.Reason
			if c.Message != "" {
				text += ": " + c.Message
			}
		}
	}
	subject := "vm/" + r.Machine
	if env.color(env.errTTY) {
		subject = styleWarn.Sprint(subject)
	}
	fmt.Fprintf(env.err, "%s %s; see maqet logs %s and maqet describe %s\n", subject, text, r.Machine, r.Machine)
}

func printProblem(env environment, machine string, problem reconcile.Problem) {
	text := fmt.Sprintf("vm/%s %s: %s", machine, problem.Reason, problem.Message)
	if env.color(env.errTTY) {
		text = styleBad.Sprintf("vm/%s", machine) + fmt.Sprintf(" %s: %s", problem.Reason, problem.Message)
	}
	if problem.Hint != "" {
		text += "; " + problem.Hint
	}
	fmt.Fprintln(env.err, text)
}

func owesRestart(p reconcile.Plan) bool {
	for _, c := range p.Changes {
		if c.Pending && c.Class == reconcile.ClassRestart {
			return true
		}
	}
	return false
}
