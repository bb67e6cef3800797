package main

import (
	"context"
	"errors"
	"io"
	"testing"
)

func TestPlaceOf_text_isLocalOrInAGuest(t *testing.T) {
	for _, c := range []struct {
		text    string
		want    place
		refused bool
	}{
		{"a", place{path: "a"}, false},
		{"-", place{path: "-"}, false},
		{"./web:/a", place{path: "./web:/a"}, false},
		{"/srv/web:/a", place{path: "/srv/web:/a"}, false},
		{"web:/a", place{"web", "/a"}, false},
		{"web:/a:b", place{"web", "/a:b"}, false},
		{`web:C:\a`, place{"web", `C:\a`}, false},
		{`web:\\host\a`, place{"web", `\\host\a`}, false},
		{"web:a", place{}, true},
		{"web:", place{}, true},
		{":/a", place{}, true},
		{"Web:/a", place{}, true},
		{"", place{}, true},
	} {
		got, err := placeOf(c.text)
		if got != c.want || (err != nil) != c.refused {
			t.Errorf("placeOf(%q) = %+v, %v", c.text, got, err)
		}
	}
}

func TestStandardInput_contextEnds_readEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	never, _ := io.Pipe()
	in := standardInput(ctx, never)
	cancel()
	if _, err := in.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("Read = %v, want context.Canceled", err)
	}
}
