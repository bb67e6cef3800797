package manifest

import (
	_ "embed"
	"encoding/json"
	"reflect"
	"strings"
	"sync"
)

// Key is one key of a manifest, as it is explained to people. What it says is generated
// from the Go types and their comments.
type Key struct {
	// Name is the key itself; of a kind, the kind.
	Name string `json:"name"`
	// Path is where it stands, such as spec.disks[].size, where [] is any item of a list
	// or any key of a free mapping; empty for a kind.
	Path string `json:"path,omitempty"`
	// Type is the form of its value in a word or two, such as size or list of strings.
	Type string `json:"type"`
	// Required tells that the mapping around it is not complete without.
	Required bool `json:"required,omitempty"`
	// Doc is what it means, in whole sentences.
	Doc string `json:"doc"`
	// Values are the words it may be; none for any.
	Values []Value `json:"values,omitempty"`
	// Keys are those of the mapping, or of each item of the list, in the order in which
	// people write them.
	Keys []Key `json:"keys,omitempty"`
}

// Value is one word that a key may be.
type Value struct {
	Word string `json:"word"`
	// Doc is what it means; empty where the key's own text says it.
	Doc string `json:"doc,omitempty"`
}

// Kinds are the kinds of objects, in the order in which they are explained.
func Kinds() []Kind { return []Kind{KindVirtualMachine, KindSnapshot, KindImage} }

// Explain is a kind with all its keys. It panics on a kind that there is not.
func Explain(kind Kind) Key {
	t := typeOf(kind)
	root := Key{Name: string(kind), Type: "object", Doc: typeDocs()[t.Name()]}
	root.Keys = keysOf(t, "")
	return root
}

// typeOf is the Go type of a kind.
func typeOf(kind Kind) reflect.Type {
	switch kind {
	case KindVirtualMachine:
		return reflect.TypeFor[VirtualMachine]()
	case KindSnapshot:
		return reflect.TypeFor[Snapshot]()
	case KindImage:
		return reflect.TypeFor[Image]()
	default:
		panic("manifest: no kind " + string(kind))
	}
}

// Find is the key at a path below k, in which [] may be left out. Where there is none,
// it is the last key on the way that there is, and the word that leads nowhere.
func (k *Key) Find(path string) (found *Key, unknown string) {
	found = k
	for word := range strings.SplitSeq(path, ".") {
		word = strings.TrimSuffix(word, "[]")
		if word == "" {
			continue
		}
		next := found.child(word)
		if next == nil {
			return found, word
		}
		found = next
	}
	return found, ""
}

func (k *Key) child(name string) *Key {
	for i := range k.Keys {
		if k.Keys[i].Name == name {
			return &k.Keys[i]
		}
	}
	return nil
}

// Suggest is the hint at the key of k that was most likely meant by word; empty where
// none is.
func (k *Key) Suggest(word string) string {
	names := make([]string, len(k.Keys))
	for i := range k.Keys {
		names[i] = k.Keys[i].Name
	}
	return didYouMean(word, names)
}

// keysOf are the keys of a struct.
func keysOf(t reflect.Type, path string) []Key {
	var keys []Key
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		key := Key{Name: name, Path: name, Required: options == "", Doc: typeDocs()[t.Name()+"."+f.Name]}
		if path != "" {
			key.Path = path + "." + name
		}
		key.describe(f.Type)
		keys = append(keys, key)
	}
	return keys
}

// describe fills in what the type says.
func (k *Key) describe(t reflect.Type) {
	s := shapeOf(t)
	k.Type = s.words()
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if s.kind == shapeDict || s.kind == shapeList && s.elem.kind == shapeObject {
		k.Path += "[]"
	}
	if s.kind == shapeDict || s.kind == shapeList {
		t, s = t.Elem(), s.elem
	}
	if s.enum != nil {
		for _, word := range s.enum.allowed {
			k.Values = append(k.Values, Value{word, typeDocs()[t.Name()+"="+word]})
		}
	}
	if s.kind == shapeObject {
		k.Keys = keysOf(t, k.Path)
		if more := typeDocs()[t.Name()]; more != "" {
			k.Doc = strings.TrimSpace(k.Doc + "\n\n" + more)
		}
	}
}

// words is the form in a word or two.
func (s *shape) words() string {
	switch s.kind {
	case shapeObject:
		return "object"
	case shapeDict:
		return "map of " + s.elem.plural()
	case shapeList:
		return "list of " + s.elem.plural()
	case shapeText:
		return "string"
	case shapeNumber:
		return "integer"
	case shapeBool:
		return "boolean"
	case shapeScalar:
		return "string, number or boolean"
	case shapeQuantity:
		return "size"
	case shapeDuration:
		return "duration"
	case shapeFree:
		return "free mapping"
	default:
		return "value"
	}
}

func (s *shape) plural() string {
	if s.kind == shapeScalar {
		return "strings, numbers or booleans"
	}
	return s.words() + "s"
}

// docsText holds the comments of the types, written by `make golden`.
//
//go:embed explain.json
var docsText []byte

// typeDocs are the comments by type, type.Field and type=word. They are read when
// something is explained, and not by every command.
var typeDocs = sync.OnceValue(func() map[string]string {
	docs := map[string]string{}
	if err := json.Unmarshal(docsText, &docs); err != nil {
		panic("manifest: explain.json: " + err.Error()) // a test holds it to the types
	}
	return docs
})
