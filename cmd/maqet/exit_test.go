package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
)

func TestExitCode_eachError_hasItsCode(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	wrapped := func(err error) error {
		return fmt.Errorf("apply: %w", &reconcile.Error{Object: "vm/web", Op: "x", Err: err})
	}
	tests := map[string]struct {
		ctx  context.Context
		err  error
		want int
	}{
		"nothing":            {t.Context(), nil, exitDone},
		"anything":           {t.Context(), errors.New("no"), exitFailed},
		"outcome":            {t.Context(), &outcomeError{code: exitPending}, exitPending},
		"usage":              {t.Context(), usagef("no"), exitInvalid},
		"manifest":           {t.Context(), &manifest.Error{Msg: "no"}, exitInvalid},
		"manifests":          {t.Context(), manifest.Errors{{Msg: "no"}}, exitInvalid},
		"not found":          {t.Context(), wrapped(reconcile.ErrNotFound), exitInvalid},
		"owned":              {t.Context(), wrapped(reconcile.ErrOwned), exitInvalid},
		"watched":            {t.Context(), wrapped(reconcile.ErrWatched), exitInvalid},
		"immutable":          {t.Context(), wrapped(reconcile.ErrImmutable), exitInvalid},
		"exists":             {t.Context(), wrapped(reconcile.ErrExists), exitInvalid},
		"prune":              {t.Context(), wrapped(reconcile.ErrPruneGuard), exitInvalid},
		"held":               {t.Context(), wrapped(reconcile.ErrHeld), exitFailed},
		"unsettled":          {t.Context(), wrapped(reconcile.ErrUnsettled), exitFailed},
		"qmp":                {t.Context(), wrapped(&qmp.Error{Class: "GenericError"}), exitRefused},
		"qemu refuses":       {t.Context(), wrapped(&driver.LifecycleError{Err: errors.New("no"), Refused: true}), exitRefused},
		"host fails":         {t.Context(), wrapped(&driver.LifecycleError{Err: errors.New("no")}), exitFailed},
		"interrupted":        {cancelled, wrapped(reconcile.ErrInterrupted), exitInterrupted},
		"failed, then ^C":    {cancelled, wrapped(reconcile.ErrUnsettled), exitFailed},
		"cancelled inside":   {t.Context(), context.Canceled, exitFailed},
		"already printed":    {t.Context(), &printedError{usagef("no")}, exitInvalid},
		"outcome before all": {t.Context(), errors.Join(&outcomeError{code: exitDegraded}, errors.New("no")), exitDegraded},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := exitCode(tt.ctx, tt.err); got != tt.want {
				t.Errorf("exit code %d, want %d", got, tt.want)
			}
		})
	}
}

func allCodes() []int {
	return []int{exitDone, exitFailed, exitPending, exitInvalid, exitDegraded, exitRefused, exitInterrupted}
}

func TestExitCodesHelp_namesEveryCodeOnce(t *testing.T) {
	var listed []int
	for _, m := range regexp.MustCompile(`(?m)^  (\d+) `).FindAllStringSubmatch(exitCodesHelp, -1) {
		code, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, code)
	}
	if want := allCodes(); !slices.Equal(listed, want) {
		t.Errorf("the help lists %v, want %v", listed, want)
	}
}

// codeOrder is the order in exitCodesHelp: the first that applies is taken.
func codeOrder() []int {
	return []int{exitInterrupted, exitInvalid, exitRefused, exitFailed, exitDegraded, exitPending, exitDone}
}

func TestWorse_anyTwo_keepsTheOneNamedFirstInHelp(t *testing.T) {
	of := func(code int) error {
		if code == exitDone {
			return nil
		}
		return &outcomeError{code: code}
	}
	order := codeOrder()
	for i, a := range order {
		for j, b := range order {
			want := order[min(i, j)]
			if got := exitCode(t.Context(), worse(t.Context(), of(a), of(b))); got != want {
				t.Errorf("worse of %d and %d is %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestReportOutcome_severalKinds_takesTheFirstInHelp(t *testing.T) {
	late := fmt.Errorf("apply: %w", context.DeadlineExceeded)
	tests := map[string]struct {
		report reconcile.Report
		err    error
		want   int
	}{
		"nothing":      {reconcile.Report{}, nil, exitDone},
		"all":          {reconcile.Report{Interrupted: true, Refused: true, Failed: true, Degraded: true, Pending: true}, nil, exitInterrupted},
		"no interrupt": {reconcile.Report{Refused: true, Failed: true, Degraded: true, Pending: true}, nil, exitRefused},
		"no refusal":   {reconcile.Report{Failed: true, Degraded: true, Pending: true}, nil, exitFailed},
		"no failure":   {reconcile.Report{Degraded: true, Pending: true}, nil, exitDegraded},
		"pending":      {reconcile.Report{Pending: true}, nil, exitPending},
		"too late":     {reconcile.Report{}, late, exitPending},
		"an error":     {reconcile.Report{}, usagef("no"), exitInvalid},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := exitCode(t.Context(), reportOutcome(tt.report, tt.err)); got != tt.want {
				t.Errorf("exit code %d, want %d", got, tt.want)
			}
		})
	}
}

func TestResultOutcome_problems_areFailuresUnlessOwed(t *testing.T) {
	with := func(reasons ...string) reconcile.Result {
		var r reconcile.Result
		for _, reason := range reasons {
			r.Plan.Problems = append(r.Plan.Problems, reconcile.Problem{Reason: reason})
		}
		return r
	}
	tests := map[string]struct {
		result reconcile.Result
		want   int
	}{
		"fine":  {reconcile.Result{}, exitDone},
		"owed":  {with(reconcile.ReasonHeld), exitPending},
		"wrong": {with(reconcile.ReasonHeld, "NoAnswer"), exitFailed},
		"error": {reconcile.Result{Err: &qmp.Error{}}, exitRefused},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := exitCode(t.Context(), resultOutcome(tt.result)); got != tt.want {
				t.Errorf("exit code %d, want %d", got, tt.want)
			}
		})
	}
}

// full is a stream that takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestRun_answerNotWritten_isNoSuccess(t *testing.T) {
	env, _, errs := pipes()
	env.out, env.home = full{}, t.TempDir()
	if code := run(t.Context(), []string{"version"}, env); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	if !bytes.Contains(errs.Bytes(), []byte("write the answer: no space")) {
		t.Errorf("stderr says %q", errs)
	}
}

func TestRun_unknownWords_areInvalidWithARemedy(t *testing.T) {
	tests := map[string]struct {
		args []string
		says string
	}{
		"command":    {[]string{"aply"}, `did you mean "apply"`},
		"subcommand": {[]string{"snapshot", "creat"}, `did you mean "create"`},
		"flag":       {[]string{"get", "--nonsense"}, "--nonsense"},
		"format":     {[]string{"get", "-o", "xml"}, "the formats are wide, json"},
		"duration":   {[]string{"stop", "web", "--for", "soon"}, "--for"},
		"negative":   {[]string{"hold", "web", "--for", "-1s"}, "must not be negative"},
		"no name":    {[]string{"stop"}, "give names, or --all"},
		"both":       {[]string{"stop", "web", "--all"}, "give one of them"},
		"no file":    {[]string{"apply"}, "use -f"},
		"timeouts":   {[]string{"get", "--timeouts", "foo=1s"}, "the names are"},
		"prune-all":  {[]string{"apply", "-f", "x", "--prune-all"}, "give both"},
		"deletions":  {[]string{"plan", "-f", "x", "--max-deletions", "1"}, "give both"},
		"method":     {[]string{"snapshot", "create", "web", "a", "--method", "Half"}, "Disk and Full"},
		"shell":      {[]string{"completion", "tcsh"}, "bash, zsh, fish"},
		"arguments":  {[]string{"version", "x"}, "takes no argument"},
		"kind":       {[]string{"get", "foo/web"}, "the kinds are vm, snap and img"},
		"two kinds":  {[]string{"get", "vm/web", "snap/a"}, "one kind at a time"},
		"no machine": {[]string{"start", "snap/a"}, "is no machine"},
		"bad name":   {[]string{"start", "Web"}, "lower-case"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			env, out, errs := pipes()
			env.home = t.TempDir()
			if code := run(t.Context(), tt.args, env); code != exitInvalid {
				t.Errorf("exit code %d, want %d", code, exitInvalid)
			}
			if out.Len() != 0 || !bytes.Contains(errs.Bytes(), []byte(tt.says)) {
				t.Errorf("stdout %q, stderr %q, want it to say %q", out, errs, tt.says)
			}
		})
	}
}
