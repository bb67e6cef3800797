package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// MachineView is one machine as PlanSet sees it.
type MachineView struct {
	Name  string
	Owner string
	// Declared is true when a manifest of this listing has the machine.
	Declared bool
	// Deleting is true when its delete was asked for already.
	Deleting bool
	// WantsStart is true when its plan has a start, Since when it has wanted it,
	// Starting when that is on its way.
	WantsStart bool
	Since      time.Time
	Starting   bool
}

// SetOptions are what may happen to many machines together.
type SetOptions struct {
	// Owner is whose machines may be pruned.
	Owner string
	// Complete is true when the listing proves absence.
	Complete bool
	// Prune permits deleting what is in no manifest, PruneAll even if that is everything.
	Prune, PruneAll bool
	// MaxDeletions bounds one prune; 0 is no bound.
	MaxDeletions int
	// MaxStarting is how many machines may be starting at once; 0 is no bound.
	MaxStarting int
}

// SetPlan is what gates the plans of single machines.
type SetPlan struct {
	// Start are the machines that may start now, longest waiting first; Later
	// are those that have to wait for them.
	Start, Later []string
	// Prune are the machines to delete.
	Prune []string
	// Left are the owner's machines that are in no manifest and stay.
	Left []string
	// Problems are why nothing is pruned although it was asked for.
	Problems []Problem
}

// PlanSet says what may happen to many machines together: how many start at
// once and in which order, and which are pruned. Now only orders equal waits.
func PlanSet(views []MachineView, opt SetOptions, now time.Time) SetPlan {
	var p SetPlan
	planStarts(&p, views, opt.MaxStarting, now)
	planPrune(&p, views, opt)
	return p
}

func planStarts(p *SetPlan, views []MachineView, most int, now time.Time) {
	var waiting []MachineView
	free := most
	for _, v := range views {
		switch {
		case v.Starting:
			free--
		case v.WantsStart:
			if v.Since.IsZero() {
				v.Since = now
			}
			waiting = append(waiting, v)
		}
	}
	slices.SortFunc(waiting, func(a, b MachineView) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	for _, v := range waiting {
		if most > 0 && free <= 0 {
			p.Later = append(p.Later, v.Name)
			continue
		}
		free--
		p.Start = append(p.Start, v.Name)
	}
}

// planPrune finds what vanished from the manifests. Absence needs proof: an
// incomplete listing proves nothing, and an empty one is more likely a mistake.
func planPrune(p *SetPlan, views []MachineView, opt SetOptions) {
	var gone []string
	owned := 0
	for _, v := range views {
		if v.Owner != opt.Owner || v.Deleting {
			continue
		}
		owned++
		if !v.Declared {
			gone = append(gone, v.Name)
		}
	}
	slices.Sort(gone)
	if len(gone) == 0 {
		return
	}
	problem := func(message, hint string) {
		p.Left = gone
		p.Problems = append(p.Problems, Problem{Reason: "PruneRefused", Message: message, Hint: hint, Err: ErrPruneGuard})
	}
	names := strings.Join(gone, ", ")
	switch {
	case !opt.Prune && !opt.Complete:
		// They may well be in what was not read; there is nothing to be said.
	case !opt.Prune:
		p.Left = gone
	case !opt.Complete:
		problem("not all manifests could be read, so it is not certain that nobody wants "+names, "mend what could not be read")
	case len(gone) == owned && !opt.PruneAll:
		problem("it would delete all machines of "+opt.Owner+": "+names, "say --prune-all if that is meant")
	case opt.MaxDeletions > 0 && len(gone) > opt.MaxDeletions:
		problem(fmt.Sprintf("it would delete %d machines and at most %d may be: %s", len(gone), opt.MaxDeletions, names), "raise --max-deletions if that is meant")
	default:
		p.Prune = gone
	}
}
