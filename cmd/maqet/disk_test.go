package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/maqet/maqet/driver"
)

func TestStoredRef_names_areReadOrRefused(t *testing.T) {
	for arg, want := range map[string]driver.StoredRef{
		"web/root":               {Folder: "web", Disk: "root"},
		"kept/web-1a2b3c4d":      {Folder: "kept/web-1a2b3c4d"},
		"kept/web-1a2b3c4d/root": {Folder: "kept/web-1a2b3c4d", Disk: "root"},
	} {
		if got, err := storedRef(arg); err != nil || got != want || got.String() != arg {
			t.Errorf("%s: %+v, %v", arg, got, err)
		}
	}
	for _, arg := range []string{"", "web", "web/", "/web", "kept", "kept/", "kept/..", "kept/../x", "web/..", "a/b/c", "kept/a/b/c", "web/.x", "kept/.x"} {
		if got, err := storedRef(arg); err == nil {
			t.Errorf("%q was read as %+v", arg, got)
		}
	}
}

func TestAdopter_folderOrDisk_eachNeedsItsForm(t *testing.T) {
	folder, one := driver.StoredRef{Folder: "kept/a"}, driver.StoredRef{Folder: "kept/a", Disk: "root"}
	if vm, as, err := adopter("web", folder); err != nil || vm != "web" || as != "" {
		t.Errorf("%s, %s, %v", vm, as, err)
	}
	if vm, as, err := adopter("web/old", one); err != nil || vm != "web" || as != "old" {
		t.Errorf("%s, %s, %v", vm, as, err)
	}
	for arg, ref := range map[string]driver.StoredRef{"web/old": folder, "web": one, "web/": one, "web/O": one, "W/old": one} {
		if vm, as, err := adopter(arg, ref); err == nil {
			t.Errorf("%q for %s gave %s, %s", arg, ref, vm, as)
		}
	}
}

func TestConfirmDelete_anythingButYes_deletesNothing(t *testing.T) {
	for answer, want := range map[string]bool{"yes\n": true, "y\n": false, "\n": false, "": false, "no\n": false, "yes please\n": false} {
		var shown bytes.Buffer
		state := t.TempDir()
		a := &app{
			env:     environment{in: strings.NewReader(answer), out: &shown, err: &shown, inTTY: true, errTTY: true, getenv: func(string) string { return "" }, home: state},
			globals: globals{stateDir: state, runDir: state + "/run"},
		}
		err := confirmDelete(t.Context(), a, []driver.StoredRef{{Folder: "web", Disk: "old"}})
		a.close(t.Context())
		if (err == nil) != want || !strings.Contains(shown.String(), "web/old") || !strings.Contains(shown.String(), "Type yes") {
			t.Errorf("%q: error %v, shown %q", answer, err, shown.String())
		}
	}
}
