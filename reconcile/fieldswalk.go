package reconcile

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// present is the value of an object that means something by being there.
const present = "present"

// leaf is one value of a manifest. Items of lists go by their names and
// entries of maps by their keys, so that order means nothing to them.
type leaf struct {
	path, pattern, value string
	// item is the name of the list item the leaf is in.
	item string
}

// leaves are all values of v by path. What is absent has no leaf.
func leaves(v any, prefix string) map[string]leaf {
	out := make(map[string]leaf)
	walkValue(reflect.ValueOf(v), leaf{path: prefix, pattern: prefix}, out)
	return out
}

func walkValue(v reflect.Value, at leaf, out map[string]leaf) {
	if text, ok := scalarText(v); ok {
		if text != "" {
			at.value = text
			out[at.path] = at
		}
		return
	}
	switch v.Kind() { //nolint:exhaustive // Manifests hold no other kinds, and the default says so.
	case reflect.Pointer:
		if !v.IsNil() {
			at.value = present
			out[at.path] = at
			walkValue(v.Elem(), at, out)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			walkValue(v.Field(i), leaf{path: at.path + "." + name, pattern: at.pattern + "." + name, item: at.item}, out)
		}
	case reflect.Slice:
		walkSlice(v, at, out)
	case reflect.Map:
		for _, key := range v.MapKeys() {
			walkValue(v.MapIndex(key), leaf{path: at.path + "[" + key.String() + "]", pattern: at.pattern + "[]", item: at.item}, out)
		}
	default:
		panic(fmt.Sprintf("manifest field %s has the kind %s, which cannot be compared", at.pattern, v.Kind()))
	}
}

// walkSlice takes lists of named items apart; a list of words is one value.
func walkSlice(v reflect.Value, at leaf, out map[string]leaf) {
	if v.Type().Elem().Kind() != reflect.Struct {
		if v.Len() > 0 {
			at.value = jsonText(v.Interface())
			out[at.path] = at
		}
		return
	}
	for i := range v.Len() {
		name := v.Index(i).FieldByName("Name").String()
		walkValue(v.Index(i), leaf{path: at.path + "[" + name + "]", pattern: at.pattern + "[]", item: name}, out)
	}
}

// scalarText is the text of a plain value; empty when it is absent.
func scalarText(v reflect.Value) (text string, scalar bool) {
	switch value := v.Interface().(type) {
	case manifest.Scalar:
		// An empty string is a value of a property, too.
		return jsonText(value), true
	case manifest.Free:
		if value.IsZero() {
			return "", true
		}
		return value.String(), true
	case manifest.Quantity:
		if value == 0 {
			return "", true
		}
		return value.String(), true
	case manifest.Duration:
		if value == 0 {
			return "", true
		}
		return value.String(), true
	}
	if v.IsZero() && v.Kind() != reflect.Struct && v.Kind() != reflect.Pointer && v.Kind() != reflect.Slice && v.Kind() != reflect.Map {
		return "", true
	}
	switch {
	case v.Kind() == reflect.String:
		return v.String(), true
	case v.Kind() == reflect.Bool:
		return strconv.FormatBool(v.Bool()), true
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10), true
	default:
		return "", false
	}
}

// sameSet compares two lists without their order.
func sameSet(_ *driver.Observed, want, have string) bool {
	var a, b []string
	if json.Unmarshal([]byte(want), &a) != nil || json.Unmarshal([]byte(have), &b) != nil {
		return false
	}
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// jsonText is v as JSON. What manifests hold always has a JSON form.
func jsonText(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}
