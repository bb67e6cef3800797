package arrows_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/e2e/internal/arrows"
)

func TestTree_everyImport_followsTheArrows(t *testing.T) {
	packages := listTree(t)
	// An empty listing would prove nothing.
	for _, room := range []string{"/cmd/maqet", "/manifest", "/driver", "/state", "/reconcile", "/internal/timing"} {
		if !slices.ContainsFunc(packages, func(p arrows.Package) bool { return p.Path == arrows.Module+room }) {
			t.Errorf("package %s is not in the listing", room)
		}
	}
	for _, violation := range arrows.Violations(packages) {
		t.Error(violation)
	}
}

// listTree asks the go command, which sees test files and build tags as a build does.
func listTree(t *testing.T) []arrows.Package {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", arrows.Module+"/...")
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var packages []arrows.Package
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
		}
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, arrows.Package{
			Path:    p.ImportPath,
			Imports: slices.Concat(p.Imports, p.TestImports, p.XTestImports),
		})
	}
}

func TestViolations_addedArrow_isNamed(t *testing.T) {
	t.Parallel()
	const m = arrows.Module
	tests := []struct {
		name     string
		from, to string
		want     string
	}{
		{"command uses a part of the driver", "/cmd/maqet", "/driver/qemu", ""},
		{"command uses an internal package", "/cmd/maqet", "/internal/layout", ""},
		{"loop uses the driver's types", "/reconcile", "/driver", ""},
		{"loop uses its own sub-package", "/reconcile/simulation", "/reconcile", ""},
		{"qemu uses qmp", "/driver/qemu", "/driver/qmp", ""},
		{"test of the end uses everything", "/e2e/crash", "/driver/qemu", ""},
		{"the outside world is no room", "/manifest", "/../other/module", ""},
		{"loop reaches into the driver", "/reconcile", "/driver/qmp", "reconcile may import only [state driver manifest internal]"},
		{"state knows the driver", "/state", "/driver", "state may import only [manifest internal]"},
		{"driver knows the state", "/driver/qemu", "/state", "driver/qemu may import only"},
		{"driver's types know a part", "/driver", "/driver/qmp", "driver may import only"},
		{"parts know each other", "/driver/disk", "/driver/qmp", "driver/disk may import only"},
		{"manifest looks up", "/manifest", "/driver", "manifest may import only [internal]"},
		{"leaf looks up", "/internal/filelock", "/manifest", "internal may import only []"},
		{"room uses a fixture", "/driver/qemu", "/e2e/internal/guest", "driver/qemu may import only"},
		{"package in no room", "/helpers", "/manifest", "lies in no room"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			imported := strings.Replace(m+tt.to, m+"/../other/module", "example.org/other", 1)
			got := arrows.Violations([]arrows.Package{{Path: m + tt.from, Imports: []string{"fmt", imported}}})
			if tt.want == "" {
				if diff := cmp.Diff([]string(nil), got); diff != "" {
					t.Errorf("violations (-want +got):\n%s", diff)
				}
				return
			}
			if len(got) != 1 || !strings.Contains(got[0], tt.want) {
				t.Errorf("violations %q, want one with %q", got, tt.want)
			}
		})
	}
}
