package manifest

import (
	"encoding/json"
	"fmt"

	"sigs.k8s.io/yaml"
)

// MarshalYAML writes an object, or anything with JSON tags, as YAML that Load
// reads back to the same values. Keys are sorted.
func MarshalYAML(v any) ([]byte, error) {
	text, err := yaml.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return text, nil
}

// MarshalJSON writes an object, or anything with JSON tags, as indented JSON
// that Load reads back to the same values, with a newline at its end.
func MarshalJSON(v any) ([]byte, error) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	return append(text, '\n'), nil
}
