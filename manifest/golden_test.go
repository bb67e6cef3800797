package manifest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the expected parts of testdata anew")

// separator parts a manifest from what is expected of it, in one file.
const separator = "\n----------\n"

// goldenCases splits the files of a folder at the separator.
func goldenCases(t *testing.T, pattern string, got func(t *testing.T, name string, input []byte) string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no files match %s: %v", pattern, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := bytes.Cut(text, []byte(separator))
			have := got(t, name+".yaml", append(input, '\n'))
			if *update {
				if err := os.WriteFile(file, []byte(string(input)+separator+have), 0o600); err != nil { //nolint:gosec // a file of testdata.
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), have); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// loadText loads one text as a file of the given name in an empty folder.
func loadText(t testing.TB, name string, text []byte) (*Set, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil { //nolint:gosec // a file in a folder of the test's own.
		t.Fatal(err)
	}
	set, err := Load(context.Background(), []string{filepath.Join(dir, name)}, LoadOptions{})
	return set, trimDir(err, dir)
}

// trimDir makes positions relative to dir.
func trimDir(err error, dir string) error {
	var faults Errors
	if !errors.As(err, &faults) {
		return err
	}
	for _, f := range faults {
		f.Position.File = strings.TrimPrefix(f.Position.File, dir+"/")
		f.Hint = strings.ReplaceAll(f.Hint, dir+"/", "")
		f.Hint = strings.ReplaceAll(f.Hint, dir, ".")
	}
	return faults
}

func TestLoad_badManifests_sayWhatWhereAndWhy(t *testing.T) {
	goldenCases(t, "testdata/bad/*.txt", func(t *testing.T, name string, input []byte) string {
		set, err := loadText(t, name, input)
		if err == nil {
			t.Fatalf("loaded without a fault")
		}
		if set == nil || set.Complete {
			t.Errorf("a set with faults claims to be complete")
		}
		return err.Error() + "\n"
	})
}

func TestLoad_goodManifests_resolveToTheSameValues(t *testing.T) {
	goldenCases(t, "testdata/good/*.txt", func(t *testing.T, name string, input []byte) string {
		set, err := loadText(t, name, input)
		if err != nil {
			t.Fatalf("%v", err)
		}
		var out strings.Builder
		for _, w := range set.Warnings {
			out.WriteString("# " + filepath.Base(w.Error()) + "\n")
		}
		dir := filepath.Dir(set.Roots[0])
		for _, o := range set.Objects {
			text, err := MarshalYAML(o.value())
			if err != nil {
				t.Fatal(err)
			}
			out.WriteString("---\n" + strings.ReplaceAll(string(text), dir, "/manifests"))
		}
		return out.String()
	})
}
