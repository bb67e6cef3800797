package timing_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/internal/timing"
)

func TestSet_goodSpec_changesOnlyWhatItNames(t *testing.T) {
	lockAndQuery := timing.Default()
	lockAndQuery.Lock, lockAndQuery.Query = 5*time.Second, 1500*time.Millisecond
	for spec, want := range map[string]timing.Table{
		"":                        timing.Default(),
		"  ":                      timing.Default(),
		"lock=5s,query=1.5s":      lockAndQuery,
		" query=1500ms , lock=5s": lockAndQuery,
	} {
		table := timing.Default()
		if err := table.Set(spec); err != nil {
			t.Errorf("Set(%q): %v", spec, err)
		}
		if diff := cmp.Diff(want, table); diff != "" {
			t.Errorf("Set(%q) (-want +got):\n%s", spec, diff)
		}
	}
}

func TestSet_badSpec_isRefusedWhole(t *testing.T) {
	for spec, want := range map[string]struct {
		err  error
		says string
	}{
		"lock":             {timing.ErrSyntax, "lock=5s,query=10s"},
		"lock=5s,":         {timing.ErrSyntax, `""`},
		"lok=5s":           {timing.ErrUnknown, `did you mean "lock"?`},
		"Lock=5s":          {timing.ErrUnknown, `did you mean "lock"?`},
		"snapshots=5s":     {timing.ErrUnknown, `did you mean "snapshot"?`},
		"=5s":              {timing.ErrUnknown, "the names are "},
		"lock=5s,zzzzzz=1": {timing.ErrUnknown, "greeting, image, kill"},
		"lock=0s":          {timing.ErrValue, "500ms"},
		"lock=-1s":         {timing.ErrValue, "lock=-1s"},
		"lock=5":           {timing.ErrValue, "unit"},
		"lock=":            {timing.ErrValue, "unit"},
		"query=1s,lock=x":  {timing.ErrValue, "lock=x"},
		"lock=1s,lock=2s":  {timing.ErrTwice, "lock=2s"},
	} {
		table := timing.Default()
		err := table.Set(spec)
		if !errors.Is(err, want.err) || !strings.Contains(err.Error(), want.says) {
			t.Errorf("Set(%q) = %v, want %v that says %q", spec, err, want.err, want.says)
		}
		var typed *timing.Error
		if !errors.As(err, &typed) || typed.Hint == "" {
			t.Errorf("Set(%q) = %#v, want an Error with a hint", spec, err)
		}
		if table != timing.Default() {
			t.Errorf("Set(%q) failed and changed the table", spec)
		}
	}
}

func TestNames_everyField_canBeSet(t *testing.T) {
	names := timing.Names()
	if fields := reflect.TypeFor[timing.Table]().NumField(); len(names) != fields {
		t.Fatalf("%d names for %d fields", len(names), fields)
	}
	if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("the names are not sorted and unique: %v", names)
	}
	for _, name := range names {
		table := timing.Default()
		if err := table.Set(name + "=123ms"); err != nil {
			t.Errorf("Set of %q: %v", name, err)
		}
		if table == timing.Default() {
			t.Errorf("Set of %q changed nothing", name)
		}
	}
}

func TestAll_changedTable_tellsItsValues(t *testing.T) {
	table := timing.Default()
	if err := table.Set("query=42s"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range table.All() {
		got = append(got, e.Name)
		if e.Name == "query" && e.Value != 42*time.Second || e.Name == "lock" && e.Value != timing.Default().Lock {
			t.Errorf("%s is %v", e.Name, e.Value)
		}
	}
	if diff := cmp.Diff(timing.Names(), got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestDefault_everyDuration_isPositive(t *testing.T) {
	table := reflect.ValueOf(timing.Default())
	for i := range table.NumField() {
		if table.Field(i).Int() <= 0 {
			t.Errorf("%s is %v", table.Type().Field(i).Name, table.Field(i))
		}
	}
}
