package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// Free is a mapping whose keys belong to another program, such as cloud-init.
// It is kept as it was read: strings, numbers, true and false, lists and further
// mappings. The zero value is an absent or empty mapping.
type Free struct{ text string }

// FreeOf makes a Free of a mapping, such as a map[string]any.
func FreeOf(v any) (Free, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return Free{}, err
	}
	var f Free
	return f, f.UnmarshalJSON(text)
}

// IsZero is true for an absent or empty mapping.
func (f Free) IsZero() bool { return f.text == "" }

// Equal tells whether both hold the same.
func (f Free) Equal(g Free) bool { return f.text == g.text }

// Map is what the mapping holds; numbers are json.Number. It is a new map each time.
func (f Free) Map() map[string]any {
	m := map[string]any{}
	if f.text != "" {
		dec := json.NewDecoder(bytes.NewReader([]byte(f.text)))
		dec.UseNumber()
		_ = dec.Decode(&m) // the text was written by encoding/json
	}
	return m
}

// String is the mapping as JSON on one line.
func (f Free) String() string {
	if f.text == "" {
		return "{}"
	}
	return f.text
}

// MarshalJSON writes the mapping; keys are sorted.
func (f Free) MarshalJSON() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalJSON reads a mapping.
func (f *Free) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var m map[string]any
	if err := dec.Decode(&m); err != nil {
		return fmt.Errorf("must be a mapping: %w", err)
	}
	f.text = ""
	if len(m) == 0 {
		return nil
	}
	text, err := json.Marshal(m)
	f.text = string(text)
	return err
}

// maxFreeDepth is how deep free mappings nest. What cloud-init reads has less than ten levels.
const maxFreeDepth = 32

// free reads a mapping whose keys are another program's.
func (w *walker) free(n *yaml.Node, s *shape) bool {
	if n.Kind != yaml.MappingNode {
		w.mismatch(n, s)
		return false
	}
	return w.freeValue(n, 0)
}

// freeValue reads whatever a free mapping holds. What YAML readers disagree about
// is refused here as everywhere: the other program may be one of the others.
func (w *walker) freeValue(n *yaml.Node, depth int) bool {
	if depth > maxFreeDepth {
		w.fault(n, fmt.Sprintf("is nested deeper than %d levels", maxFreeDepth), "make it flatter")
		return false
	}
	elem := &shape{kind: shapeFree, depth: depth + 1}
	switch n.Kind {
	case yaml.MappingNode:
		return w.dict(n, &shape{kind: shapeDict, elem: elem})
	case yaml.SequenceNode:
		return w.list(n, &shape{kind: shapeList, elem: elem})
	case yaml.ScalarNode:
		return w.property(n)
	case yaml.AliasNode, yaml.DocumentNode:
	}
	w.mismatch(n, &shape{kind: shapeFree})
	return false
}
