package manifest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	sigs "sigs.k8s.io/yaml"
)

// loadBytes loads a text without a file system.
func loadBytes(text []byte) fileResult {
	return loadFile(source{name: "fuzz.yaml", dir: "/manifests"}, text, nil, "x86_64", newShapes(), func(c *CloudInit) ([]byte, error) { return c.readUserDataFile() })
}

func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.txt", "testdata/good/*.txt"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			input, _, _ := bytes.Cut(text, []byte(separator))
			f.Add(input)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		result := loadBytes(text)
		if err := result.faults.errorOrNil(); err != nil {
			checkFaults(t, result.faults)
			return
		}
		for _, o := range result.objects {
			checkStable(t, o)
		}
		checkAgainstSigs(t, text, result)
	})
}

// checkFaults holds every fault to what a person needs of it.
func checkFaults(t *testing.T, faults Errors) {
	t.Helper()
	for _, f := range faults {
		if f.Position.File == "" || f.Position.Line < 1 || f.Position.Column < 1 || f.message() == "" {
			t.Errorf("a fault without a place or a message: %#v", f)
		}
		if text := f.Error(); len(text) > 4096 {
			t.Errorf("a fault of %d bytes: %.200s", len(text), text)
		}
	}
}

// checkStable writes an object and reads it back: the same object comes out.
func checkStable(t *testing.T, o *Object) {
	t.Helper()
	for name, marshal := range map[string]func(any) ([]byte, error){"YAML": MarshalYAML, "JSON": MarshalJSON} {
		text, err := marshal(o.value())
		if err != nil {
			t.Fatalf("write %s: %v", name, err)
		}
		again := loadBytes(text)
		if len(again.faults) > 0 || len(again.objects) != 1 {
			t.Fatalf("%s that was written does not load: %v\n%s", name, again.faults, text)
		}
		if diff := cmp.Diff(o.value(), again.objects[0].value(), cmp.AllowUnexported(Scalar{})); diff != "" {
			t.Fatalf("%s reads back differently: %s\n%s", name, diff, text)
		}
		if again.objects[0].Digest != o.Digest {
			t.Fatalf("%s reads back with another digest\n%s", name, text)
		}
	}
}

// checkAgainstSigs holds what was read to what the reader of Kubernetes reads
// from the same text, where that is a single object.
func checkAgainstSigs(t *testing.T, text []byte, result fileResult) {
	t.Helper()
	if len(result.objects) != 1 || !isSingleDocument(text) || bytes.Contains(text, []byte("items")) {
		return
	}
	var want any
	switch o := result.objects[0]; {
	case o.VM != nil:
		var vm VirtualMachine
		if err := sigs.Unmarshal(text, &vm); err != nil {
			t.Fatalf("sigs.k8s.io/yaml refuses what is accepted: %v", err)
		}
		want = Resolve(&vm, "/manifests")
	default:
		var snap Snapshot
		if err := sigs.Unmarshal(text, &snap); err != nil {
			t.Fatalf("sigs.k8s.io/yaml refuses what is accepted: %v", err)
		}
		want = ResolveSnapshot(&snap)
	}
	if diff := cmp.Diff(want, result.objects[0].value(), cmp.AllowUnexported(Scalar{})); diff != "" {
		t.Fatalf("-sigs.k8s.io/yaml +maqet:\n%s", diff)
	}
}

func isSingleDocument(text []byte) bool {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if dec.Decode(&doc) != nil {
		return false
	}
	// A document that is empty or ignored comes first for one reader only.
	return errors.Is(dec.Decode(&doc), io.EOF)
}
