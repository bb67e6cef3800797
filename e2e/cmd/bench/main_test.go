package main

import (
	"errors"
	"io"
	"testing"
)

func TestParse_selection_picksCases(t *testing.T) {
	t.Parallel()
	o, err := parse([]string{"-run", "^qmp$", "-n", "3"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.cases) != 1 || o.cases[0].Name != "qmp" || o.runs != 3 {
		t.Errorf("parsed %+v, want the case qmp and 3 runs", o)
	}
}

func TestParse_unusableFlags_areUsageErrors(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-run", "^nothing$"}, {"-run", "("}, {"-n", "0"}, {"-machines", "-1"}, {"-o", "yaml"}, {"-bogus"}, {"apply"},
	} {
		if _, err := parse(args, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("parse %q: error %v, want a usage error", args, err)
		}
	}
}
