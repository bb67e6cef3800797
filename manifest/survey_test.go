package manifest

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLook_folder_namesWhatDecides(t *testing.T) {
	dir := tree(t, map[string]string{
		"a.yaml": vmNamed("a"), "notes.txt": "x", ".hidden.yaml": "x", "out/b.yaml": "x", ".maqetignore": "out\n",
		"sub/c.yml": vmNamed("c"), "again": "->sub", "gone": "->nowhere", "link": "->notes.txt", "loop": "->.",
	})
	got, err := Look(t.Context(), []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	// A link that leads nowhere is looked at again, and proves no absence meanwhile.
	if len(got.Faults) != 1 || !strings.Contains(got.Faults.Error(), "gone: cannot be read") {
		t.Errorf("faults: %v", got.Faults)
	}
	got.Faults = nil
	want := &Survey{
		Files:   []string{"a.yaml", "again/c.yml"},
		Folders: []string{".", "again"},
		Looked:  []string{".", ".maqetignore", "a.yaml", "again", "again/.maqetignore", "again/c.yml", "gone", "link", "loop", "sub"},
	}
	for _, list := range [][]string{got.Files, got.Folders, got.Looked} {
		for i := range list {
			list[i], _ = filepath.Rel(dir, list[i])
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestLook_anyPaths_givesTheFilesOfLoad(t *testing.T) {
	dir := tree(t, map[string]string{
		"b.yml": vmNamed("b"), "sub/a.yaml": vmNamed("a"), "x.txt": "x", "..data": "->..1", "..1/d.yaml": vmNamed("d"), "d.yaml": "->..data/d.yaml",
		"given.conf": vmNamed("given"),
	})
	paths := []string{filepath.Join(dir, "given.conf"), dir, dir}
	set, err := Load(t.Context(), paths, LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	survey, err := Look(t.Context(), paths)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(set.Files, survey.Files); diff != "" {
		t.Errorf("-Load +Look:\n%s", diff)
	}
}

func TestLook_missingPath_isAFaultAndLookedAt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "later")
	survey, err := Look(t.Context(), []string{path})
	if err != nil || len(survey.Faults) != 1 || !slices.Equal(survey.Looked, []string{path}) {
		t.Errorf("survey %+v, err %v", survey, err)
	}
}

func TestLook_badCalls_areErrors(t *testing.T) {
	if _, err := Look(t.Context(), []string{"vms"}); err == nil || !strings.Contains(err.Error(), "not absolute") {
		t.Errorf("err %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Look(ctx, []string{t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Errorf("err %v", err)
	}
}
