package main

import (
	"errors"
	"testing"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
)

func TestOutcome_whoeverDidTheLastStep_theStateIsSaid(t *testing.T) {
	steps := func(kinds ...reconcile.StepKind) []reconcile.StepResult {
		var out []reconcile.StepResult
		for _, k := range kinds {
			out = append(out, reconcile.StepResult{Step: reconcile.Step{Kind: k}})
		}
		return out
	}
	running := reconcile.Status{Phase: reconcile.PhaseRunning, PID: 7}
	stopped := reconcile.Status{Phase: reconcile.PhaseStopped}
	restart := []reconcile.StepKind{reconcile.StepStart}
	for name, c := range map[string]struct {
		result reconcile.Result
		last   []reconcile.StepKind
		want   string
	}{
		"restarted by this command": {
			reconcile.Result{Status: running, Steps: steps(reconcile.StepPowerdown, reconcile.StepRecordEnd, reconcile.StepStart)}, restart, "",
		},
		"restarted, and started by a watch": {
			reconcile.Result{Status: running, Steps: steps(reconcile.StepPowerdown, reconcile.StepRecordEnd)}, restart, "vm/web is Running now, pid 7\n",
		},
		"stopped by this command": {
			reconcile.Result{Status: stopped, Steps: steps(reconcile.StepPowerdown, reconcile.StepRecordEnd)}, powerSteps(manifest.PowerStopped), "",
		},
		"stopped, and noted by a watch": {
			reconcile.Result{Status: stopped, Steps: steps(reconcile.StepPowerdown)}, powerSteps(manifest.PowerStopped), "vm/web is Stopped now\n",
		},
		"nothing was to be done": {reconcile.Result{Status: stopped}, powerSteps(manifest.PowerStopped), "vm/web is Stopped already\n"},
		"resumed":                {reconcile.Result{Status: running, Steps: steps(reconcile.StepResume)}, powerSteps(manifest.PowerRunning), ""},
		"started paused": {
			reconcile.Result{Status: reconcile.Status{Phase: reconcile.PhasePaused, PID: 7}, Steps: steps(reconcile.StepStart)}, powerSteps(manifest.PowerPaused), "",
		},
		"it failed": {reconcile.Result{Status: stopped, Err: errors.New("no")}, powerSteps(manifest.PowerRunning), ""},
		"a problem": {
			reconcile.Result{Status: stopped, Plan: reconcile.Plan{Problems: []reconcile.Problem{{Reason: "Stuck"}}}}, powerSteps(manifest.PowerRunning), "",
		},
		"it is gone": {reconcile.Result{Gone: true}, powerSteps(manifest.PowerRunning), ""},
	} {
		t.Run(name, func(t *testing.T) {
			env, out, _ := pipes()
			c.result.Machine = "web"
			newProgress(&app{env: env}).outcome(c.result, c.last...)
			if out.String() != c.want {
				t.Errorf("printed %q, want %q", out, c.want)
			}
		})
	}
}
