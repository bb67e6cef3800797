package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
)

func TestSnapshotTree_showsWhatCameFromWhat(t *testing.T) {
	var names []string
	for _, row := range snapshotTree([]reconcile.SnapshotStatus{
		{Name: "a"},
		{Name: "b", Parent: "a"},
		{Name: "c", Parent: "b"},
		{Name: "d", Parent: "a"},
		{Name: "lost", Parent: "deleted"},
		{Name: "x", Parent: "y"},
		{Name: "y", Parent: "x"},
	}) {
		names = append(names, row[0])
	}
	want := []string{
		"┌─ a", "│  ├─ b", "│  │  └─ c", "│  └─ d", "├─ lost", "├─ x", "└─ y",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSnapshotRow_tellsMemoryAndPause(t *testing.T) {
	row := snapshotRow(reconcile.SnapshotStatus{
		Name: "a", MemorySize: manifest.Quantity(80 << 20), Paused: manifest.Duration(1213400 * time.Microsecond), PausedAtMost: true,
	})
	if got := strings.Join(row[5:7], " "); got != "80.0Mi <=1.213s" {
		t.Errorf("memory and pause are %q", got)
	}
	if got := strings.Join(snapshotRow(reconcile.SnapshotStatus{})[5:7], " "); got != "- -" {
		t.Errorf("of a disk-only one they are %q", got)
	}
}
