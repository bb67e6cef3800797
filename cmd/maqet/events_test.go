package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/state"
)

func TestEventsRequest_filter_meansWhatTheFlagsSay(t *testing.T) {
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	names := []string{"web"}
	for name, tt := range map[string]struct {
		request eventsRequest
		want    state.Filter
		bad     bool
	}{
		"all":            {eventsRequest{tail: -1}, state.Filter{Machines: names}, false},
		"last":           {eventsRequest{tail: 3}, state.Filter{Machines: names, Last: 3}, false},
		"none":           {eventsRequest{tail: 0}, state.Filter{Machines: names, Last: -1}, false},
		"since":          {eventsRequest{tail: -1, since: time.Hour}, state.Filter{Machines: names, Since: now.Add(-time.Hour)}, false},
		"negative tail":  {eventsRequest{tail: -2}, state.Filter{}, true},
		"negative since": {eventsRequest{tail: -1, since: -1}, state.Filter{}, true},
	} {
		got, err := tt.request.filter(names, now)
		if tt.bad != errors.As(err, new(*usageError)) {
			t.Errorf("%s: error %v", name, err)
		}
		if diff := cmp.Diff(tt.want, got); !tt.bad && diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestOperationsDocs_reasons_areThoseOfTheJournal(t *testing.T) {
	text := section(t, readDoc(t, "docs/operations.md"), "## What happened, and waiting for what will")
	var documented []string
	for _, row := range keyRows(text) {
		documented = append(documented, row.paths...)
	}
	if diff := cmp.Diff(state.Reasons(), documented, sorted()); diff != "" {
		t.Errorf("documented reasons differ from the journal's (-journal +docs):\n%s", diff)
	}
}

// sorted compares lists as sets.
func sorted() cmp.Option {
	return cmp.Transformer("sorted", func(list []string) map[string]int {
		counts := map[string]int{}
		for _, s := range list {
			counts[s]++
		}
		return counts
	})
}

func TestColumns_rowsThatCome_lineUp(t *testing.T) {
	env, out, _ := pipes()
	c := newColumns(env.out, []string{"NAME", "PHASE", "NOTE"}, []string{"", "Running"})
	c.add([]string{"a", "Paused", "x"}, []string{"b", "Running", ""})
	c.add([]string{"longer", "Stopped", "z"})
	want := "NAME   PHASE     NOTE\na      Paused    x\nb      Running\nlonger   Stopped   z\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	if strings.Count(out.String(), "NAME") != 1 {
		t.Error("the header is printed more than once")
	}
}
