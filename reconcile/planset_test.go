package reconcile

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPlanSet_starts_areGated(t *testing.T) {
	views := []MachineView{
		{Name: "c", WantsStart: true, Since: t0},
		{Name: "b", WantsStart: true, Since: t0},
		{Name: "a", WantsStart: true, Since: t0.Add(time.Second)},
		{Name: "x", Starting: true},
		{Name: "idle"},
	}
	for _, c := range []struct {
		most         int
		start, later []string
	}{
		{0, []string{"b", "c", "a"}, nil},
		{1, nil, []string{"b", "c", "a"}},
		{2, []string{"b"}, []string{"c", "a"}},
		{4, []string{"b", "c", "a"}, nil},
	} {
		p := PlanSet(views, SetOptions{MaxStarting: c.most}, t0)
		if diff := cmp.Diff([][]string{c.start, c.later}, [][]string{p.Start, p.Later}); diff != "" {
			t.Errorf("at most %d (-want +got):\n%s", c.most, diff)
		}
	}
}

func TestPlanSet_prune_isGuarded(t *testing.T) {
	views := []MachineView{
		{Name: "kept", Owner: "o", Declared: true},
		{Name: "b", Owner: "o"},
		{Name: "a", Owner: "o"},
		{Name: "going", Owner: "o", Deleting: true},
		{Name: "foreign", Owner: "p"},
	}
	all := views[1:]
	cases := []struct {
		name        string
		views       []MachineView
		opt         SetOptions
		prune, left []string
		refused     bool
	}{
		{"not asked for", views, SetOptions{Complete: true}, nil, []string{"a", "b"}, false},
		{"asked for", views, SetOptions{Complete: true, Prune: true}, []string{"a", "b"}, nil, false},
		{"incomplete listing", views, SetOptions{Prune: true, PruneAll: true}, nil, []string{"a", "b"}, true},
		{"all of them", all, SetOptions{Complete: true, Prune: true}, nil, []string{"a", "b"}, true},
		{"all of them, meant", all, SetOptions{Complete: true, Prune: true, PruneAll: true}, []string{"a", "b"}, nil, false},
		{"too many", views, SetOptions{Complete: true, Prune: true, MaxDeletions: 1}, nil, []string{"a", "b"}, true},
		{"as many as may be", views, SetOptions{Complete: true, Prune: true, MaxDeletions: 2}, []string{"a", "b"}, nil, false},
		{"nothing gone", views[:1], SetOptions{Prune: true}, nil, nil, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.opt.Owner = "o"
			p := PlanSet(c.views, c.opt, t0)
			if diff := cmp.Diff([][]string{c.prune, c.left}, [][]string{p.Prune, p.Left}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if c.refused != (len(p.Problems) > 0) {
				t.Errorf("problems: %v", p.Problems)
			}
		})
	}
}
