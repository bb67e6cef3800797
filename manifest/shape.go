package manifest

import (
	"reflect"
	"strings"
)

// shapeKind is the form a value has in a manifest.
type shapeKind int

const (
	shapeObject   shapeKind = iota // a mapping with known keys
	shapeDict                      // a mapping with free keys
	shapeList                      // a sequence
	shapeText                      // a string
	shapeNumber                    // a whole number
	shapeBool                      // true or false
	shapeScalar                    // a string, number or boolean
	shapeQuantity                  // a size in bytes
	shapeDuration                  // a span of time
)

// String is what a person calls the form.
func (k shapeKind) String() string {
	switch k {
	case shapeObject, shapeDict:
		return "a mapping"
	case shapeList:
		return "a list"
	case shapeText:
		return "a string"
	case shapeNumber:
		return "a whole number"
	case shapeBool:
		return "true or false"
	case shapeScalar:
		return "a string, a number, true or false"
	case shapeQuantity:
		return "a size such as 512Mi"
	case shapeDuration:
		return "a duration such as \"60s\""
	default:
		return "a value"
	}
}

// shape is what the walk knows of a Go type. It is made by reflection, so that
// a field exists in manifests exactly when it exists in the types.
type shape struct {
	kind   shapeKind
	fields []shapeField // of an object, in the order of the type
	elem   *shape       // of a list or dict
	// freeText is true where control characters do no harm, since the text
	// never reaches QEMU.
	freeText bool
}

// shapeField is one key of an object.
type shapeField struct {
	name     string
	shape    *shape
	required bool
}

// find is the field of that key, or nil.
func (s *shape) find(key string) *shapeField {
	for i := range s.fields {
		if s.fields[i].name == key {
			return &s.fields[i]
		}
	}
	return nil
}

// names are the keys of an object.
func (s *shape) names() []string {
	names := make([]string, len(s.fields))
	for i, f := range s.fields {
		names[i] = f.name
	}
	return names
}

// shapeOf is the shape of t. It panics on a type no manifest can hold, which
// only a change of the types in this package can bring about.
func shapeOf(t reflect.Type) *shape {
	switch t {
	case reflect.TypeFor[Quantity]():
		return &shape{kind: shapeQuantity}
	case reflect.TypeFor[Duration]():
		return &shape{kind: shapeDuration}
	case reflect.TypeFor[Scalar]():
		return &shape{kind: shapeScalar}
	default:
	}
	//nolint:exhaustive // every other kind is refused below.
	switch t.Kind() {
	case reflect.Pointer:
		return shapeOf(t.Elem())
	case reflect.Struct:
		return shapeOfStruct(t)
	case reflect.Map:
		return &shape{kind: shapeDict, elem: shapeOf(t.Elem())}
	case reflect.Slice:
		return &shape{kind: shapeList, elem: shapeOf(t.Elem())}
	case reflect.String:
		return &shape{kind: shapeText}
	case reflect.Int:
		return &shape{kind: shapeNumber}
	case reflect.Bool:
		return &shape{kind: shapeBool}
	default:
		panic("manifest: no form in a manifest for " + t.String())
	}
}

func shapeOfStruct(t reflect.Type) *shape {
	s := &shape{kind: shapeObject}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		field := shapeField{name: name, shape: shapeOf(f.Type), required: options == ""}
		if t == reflect.TypeFor[Metadata]() || t == reflect.TypeFor[SerialReadiness]() {
			field.shape.setFreeText()
		}
		s.fields = append(s.fields, field)
	}
	return s
}

func (s *shape) setFreeText() {
	s.freeText = true
	if s.elem != nil {
		s.elem.setFreeText()
	}
}
