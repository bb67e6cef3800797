package manifest

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/google/jsonschema-go/jsonschema"
)

// SchemaDialect is the draft that schemas are written in.
const SchemaDialect = "https://json-schema.org/draft/2020-12/schema"

// The forms that JSON Schema knows no type for. Each says no more than what holds for
// every value that Load takes.
const (
	sizePattern     = `^(0|[1-9][0-9]*)(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$`
	durationPattern = `^[0-9.]+(ns|us|µs|ms|s|m|h)([0-9.]+(ns|us|µs|ms|s|m|h))*$`
	namePattern     = `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
)

// Schema is the JSON Schema of a kind, made from its Go type and what Explain says. It
// refuses nothing that Load takes. What Load refuses beyond it concerns how YAML is
// written, keys that depend on each other, arithmetic, and other objects.
func Schema(kind Kind) (*jsonschema.Schema, error) {
	t := typeOf(kind)
	forms := map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[Quantity](): {AnyOf: []*jsonschema.Schema{
			{Type: "integer", Minimum: new(0.0)}, {Type: "string", Pattern: sizePattern},
		}},
		reflect.TypeFor[Duration](): {Type: "string", Pattern: durationPattern},
		reflect.TypeFor[Scalar]():   {Types: []string{"string", "number", "boolean"}},
		reflect.TypeFor[Free]():     {Type: "object"},
		reflect.TypeFor[Kind]():     {Type: "string", Enum: []any{string(kind)}},
	}
	words(t, forms)
	s, err := jsonschema.ForType(t, &jsonschema.ForOptions{TypeSchemas: forms})
	if err != nil {
		return nil, fmt.Errorf("make the schema of %s: %w", kind, err)
	}
	root := Explain(kind)
	complete(s, &root)
	s.Schema, s.Title = SchemaDialect, string(kind)
	s.Properties["apiVersion"].Enum = []any{APIVersion}
	s.Properties["status"] = anyValue("what get prints; it is not read")
	for _, key := range shapeOf(reflect.TypeFor[Metadata]()).ignored {
		s.Properties["metadata"].Properties[key] = anyValue("what get prints; it is not read")
	}
	s.Properties["metadata"].Properties["name"].Pattern = namePattern
	s.Properties["metadata"].Properties["name"].MaxLength = new(maxName)
	return s, nil
}

func anyValue(why string) *jsonschema.Schema { return &jsonschema.Schema{Description: why} }

// words collects the types below t that may only be certain words.
func words(t reflect.Type, into map[reflect.Type]*jsonschema.Schema) {
	switch t.Kind() { //nolint:exhaustive // the others hold no types
	case reflect.Pointer, reflect.Slice, reflect.Map:
		words(t.Elem(), into)
	case reflect.Struct:
		if into[t] != nil {
			return
		}
		for f := range t.Fields() {
			words(f.Type, into)
		}
	case reflect.String:
		if e := enumOf(t); e != nil {
			s := &jsonschema.Schema{Type: "string"}
			for _, word := range e.allowed {
				s.Enum = append(s.Enum, word)
			}
			into[t] = s
		}
	}
}

// complete adds what the Go type does not say: descriptions, and that null is no value.
func complete(s *jsonschema.Schema, key *Key) {
	s.Description = key.Doc
	if i := slices.Index(s.Types, "null"); i >= 0 {
		s.Types = slices.Delete(slices.Clone(s.Types), i, i+1)
	}
	if len(s.Types) == 1 {
		s.Type, s.Types = s.Types[0], nil
	}
	in := s
	if s.Items != nil {
		in = s.Items
		in.Types = nil
	}
	for i := range key.Keys {
		if p := in.Properties[key.Keys[i].Name]; p != nil {
			complete(p, &key.Keys[i])
		}
	}
}
