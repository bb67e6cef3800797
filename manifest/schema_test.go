package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"
	"go.yaml.in/yaml/v3"
)

// schemas are those of all kinds, ready to judge.
func schemas(t *testing.T) map[string]*jsonschema.Resolved {
	t.Helper()
	all := map[string]*jsonschema.Resolved{}
	for _, kind := range Kinds() {
		s, err := Schema(kind)
		if err != nil {
			t.Fatal(err)
		}
		if all[string(kind)], err = s.Resolve(nil); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// judged is what the schemas say of a file: the first refusal, or nil. A document
// that no YAML reader takes, or of no kind, is refused as well.
func judged(t *testing.T, all map[string]*jsonschema.Resolved, text []byte) error {
	t.Helper()
	if json.Valid(text) { // JSON has escapes that YAML does not
		return judgeOne(all, text)
	}
	for decoder := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var document any
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		plain, err := json.Marshal(document)
		if err != nil {
			return err
		}
		for _, object := range objectsIn(plain) {
			if err := judgeOne(all, object); err != nil {
				return err
			}
		}
	}
}

// objectsIn are the object of a document, or those of a list.
func objectsIn(document []byte) []json.RawMessage {
	var list struct {
		Kind  string
		Items []json.RawMessage
	}
	if json.Unmarshal(document, &list) == nil && list.Kind == "List" {
		return list.Items
	}
	return []json.RawMessage{document}
}

func judgeOne(all map[string]*jsonschema.Resolved, text []byte) error {
	if string(text) == "null" {
		return nil // a document with nothing in it
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return err
	}
	object, _ := value.(map[string]any)
	kind, _ := object["kind"].(string)
	s := all[kind]
	if s == nil {
		return errors.New("no kind of ours")
	}
	return s.Validate(value)
}

// TestSchema_whatLoadTakes_isTaken holds the schemas to the manifests that are good.
func TestSchema_whatLoadTakes_isTaken(t *testing.T) {
	all := schemas(t)
	files, err := filepath.Glob("testdata/good/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		input, _, _ := bytes.Cut(text, []byte(separator))
		if err := judged(t, all, input); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestSchema_bad_beyondIsNamed names those of the bad manifests that the schemas take:
// what Load refuses beyond them.
func TestSchema_bad_beyondIsNamed(t *testing.T) {
	all := schemas(t)
	files, err := filepath.Glob("testdata/bad/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	var taken []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		input, _, _ := bytes.Cut(text, []byte(separator))
		if judged(t, all, input) == nil {
			taken = append(taken, strings.TrimSuffix(filepath.Base(file), ".txt"))
		}
	}
	want := []string{
		"alias_bomb",     // how YAML is written
		"disk_buses",     // keys that depend on each other
		"disks",          // keys that depend on each other
		"extra_args",     // what maqet passes itself
		"max_count",      // arithmetic
		"memory_step",    // arithmetic
		"merge_and_tags", // how YAML is written
	}
	if diff := cmp.Diff(want, taken); diff != "" {
		t.Errorf("taken by the schemas (-want +got):\n%s", diff)
	}
}
