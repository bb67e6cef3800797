package manifest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// walker compares a node tree with a shape, collects what does not fit, and
// writes what fits as JSON: the checked document. A value that does not fit is
// left out, so that the rest can still be looked at.
type walker struct {
	file   string
	out    []byte
	path   []string // keys and "[i]"
	faults Errors
	broken brokenPaths
	spent  aliasBudget
	alias  int  // how many aliases the walk is inside of
	bomb   bool // the budget of aliases is used up, and that has been said
}

// walk reads the whole document n, whose form is s.
func (w *walker) walk(n *yaml.Node, s *shape) {
	if !w.value(n, s) {
		w.out = append(w.out[:0], "{}"...)
	}
}

// fault notes what is wrong with n at the current path.
func (w *walker) fault(n *yaml.Node, msg, hint string) {
	w.faultAt(n, joinPath(w.path), msg, hint)
}

func (w *walker) faultAt(n *yaml.Node, path, msg, hint string) {
	if w.isHopeless() {
		return
	}
	w.broken = append(w.broken, path)
	w.faults = append(w.faults, &Error{Position: Position{w.file, n.Line, n.Column}, Path: path, Msg: msg, Hint: hint})
}

// isHopeless is true when there are more faults than are ever shown; a hostile
// file could hold millions.
func (w *walker) isHopeless() bool { return len(w.faults) > 10*maxFaults }

// affords spends the budget of aliases on n, and says once when it is used up.
func (w *walker) affords(n *yaml.Node) bool {
	if !w.bomb && w.spent.take(cost{1, len(n.Value)}) {
		return true
	}
	if !w.bomb {
		w.bomb = true
		w.fault(n, aliasBudgetMsg, aliasBudgetHint)
	}
	return false
}

// value appends the JSON of n to out and is true, or leaves a fault behind.
func (w *walker) value(n *yaml.Node, s *shape) bool {
	if n.Kind == yaml.AliasNode {
		w.alias++
		defer func() { w.alias-- }()
		n = target(n)
	}
	if w.alias > 0 && !w.affords(n) {
		return false
	}
	if n.Style&yaml.TaggedStyle != 0 {
		w.fault(n, "the tag "+quote(n.Tag)+" is not supported", "remove it; quote the value where a string is wanted")
		return false
	}
	if isNull(n) {
		w.fault(n, "has no value", "give it one, or remove the key")
		return false
	}
	switch s.kind {
	case shapeObject:
		return w.object(n, s)
	case shapeDict:
		return w.dict(n, s)
	case shapeList:
		return w.list(n, s)
	case shapeText, shapeNumber, shapeBool, shapeScalar, shapeQuantity, shapeDuration:
		return w.scalar(n, s)
	default:
		return false
	}
}

// object reads a mapping with known keys.
func (w *walker) object(n *yaml.Node, s *shape) bool {
	if n.Kind != yaml.MappingNode {
		w.mismatch(n, s)
		return false
	}
	w.out = append(w.out, '{')
	first := len(w.out)
	seen, meant := keySet{}, keySet{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, ok := w.key(n.Content[i], seen)
		if !ok || s.ignores(key) {
			continue
		}
		f := s.find(key)
		if f == nil {
			if why, ok := s.refused[key]; ok {
				w.path = append(w.path, key)
				w.fault(n.Content[i], "is not supported", why)
				w.path = w.path[:len(w.path)-1]
				continue
			}
			if guess := w.unknownKey(n.Content[i], key, s.names()); guess != "" {
				meant[guess] = n.Line
			}
			continue
		}
		w.member(n.Content[i+1], key, f.shape, first)
	}
	w.out = append(w.out, '}')
	for _, f := range s.fields {
		if f.required && !seen.has(f.name) && !meant.has(f.name) {
			w.path = append(w.path, f.name)
			w.fault(n, "required key is missing", "")
			w.path = w.path[:len(w.path)-1]
		}
	}
	return true
}

// dict reads a mapping with free keys.
func (w *walker) dict(n *yaml.Node, s *shape) bool {
	if n.Kind != yaml.MappingNode {
		w.mismatch(n, s)
		return false
	}
	w.out = append(w.out, '{')
	first := len(w.out)
	seen := keySet{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := target(n.Content[i])
		if (w.alias > 0 || k != n.Content[i]) && !w.affords(k) {
			return false
		}
		key, ok := w.key(n.Content[i], seen)
		if !ok {
			continue
		}
		if why := textTrap(k); why != "" {
			w.path = append(w.path, key)
			w.fault(k, "the key "+why, "quote it: "+quote(key))
			w.path = w.path[:len(w.path)-1]
			continue
		}
		w.member(n.Content[i+1], key, s.elem, first)
	}
	w.out = append(w.out, '}')
	return true
}

// member appends "key":value; first is where the members of the mapping begin.
func (w *walker) member(value *yaml.Node, key string, s *shape, first int) {
	mark := len(w.out)
	if mark > first {
		w.out = append(w.out, ',')
	}
	w.out = appendJSONString(w.out, key)
	w.out = append(w.out, ':')
	w.path = append(w.path, key)
	if !w.value(value, s) {
		w.out = w.out[:mark]
	}
	w.path = w.path[:len(w.path)-1]
}

// list reads a sequence. An item that does not fit becomes null, so that the
// others keep their index.
func (w *walker) list(n *yaml.Node, s *shape) bool {
	if n.Kind != yaml.SequenceNode {
		w.mismatch(n, s)
		return false
	}
	w.out = append(w.out, '[')
	for i, item := range n.Content {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		mark := len(w.out)
		w.path = append(w.path, "["+strconv.Itoa(i)+"]")
		if !w.value(item, s.elem) {
			w.out = append(w.out[:mark], "null"...)
		}
		w.path = w.path[:len(w.path)-1]
	}
	w.out = append(w.out, ']')
	return true
}

func (w *walker) mismatch(n *yaml.Node, s *shape) {
	w.fault(n, "must be "+s.kind.String()+", not "+describe(n), "")
}

// key reads a key of a mapping. It is false for what cannot be used as one.
func (w *walker) key(n *yaml.Node, seen keySet) (string, bool) {
	n = target(n)
	if n.Kind != yaml.ScalarNode {
		w.fault(n, "a key must be a string, not "+describe(n), "")
		return "", false
	}
	if n.Style&yaml.TaggedStyle != 0 {
		w.fault(n, "the tag "+quote(n.Tag)+" is not supported", "remove it")
		return "", false
	}
	if n.Tag == "!!merge" {
		w.fault(n, "merge keys (<<) are not supported", "write the keys out, or repeat whole values by an alias")
		return "", false
	}
	if line, ok := seen[n.Value]; ok {
		w.path = append(w.path, n.Value)
		w.fault(n, "the key is given a second time", fmt.Sprintf("the first is in line %d; remove one of them", line))
		w.path = w.path[:len(w.path)-1]
		return "", false
	}
	seen[n.Value] = n.Line
	return n.Value, true
}

// unknownKey notes a key that nobody knows, and gives the one that was meant.
func (w *walker) unknownKey(n *yaml.Node, key string, known []string) string {
	w.path = append(w.path, key)
	defer func() { w.path = w.path[:len(w.path)-1] }()
	guess := nearest(key, known)
	if guess != "" {
		w.fault(n, "unknown key", fmt.Sprintf("did you mean %q?", guess))
		return guess
	}
	hint := "known here: " + strings.Join(known, ", ")
	if len(known) == 0 {
		hint = "none is known here: write {}"
	}
	w.fault(n, "unknown key", hint)
	return ""
}

// keySet holds the keys met in a mapping, with their lines.
type keySet map[string]int

func (s keySet) has(key string) bool {
	_, ok := s[key]
	return ok
}

// brokenPaths are the paths of values that did not fit. What is said about
// their surroundings may be said only for want of them.
type brokenPaths []string

// touches is true when a fault at path may only be the consequence of another:
// when path lies in a broken value, or beside one in the same mapping. The
// mappings at the top hold too many unrelated things for that, and so do lists.
func (b brokenPaths) touches(path string) bool {
	if len(b) == 0 {
		return false
	}
	around := path[:max(strings.LastIndexByte(path, '.'), 0)]
	if around == "spec" || around == "metadata" || around == "" || strings.HasSuffix(path, "]") {
		around = path
	}
	for _, p := range b {
		if within(p, around) || within(path, p) {
			return true
		}
	}
	return false
}

// within is true when path is outer or lies below it.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// joinPath writes a path the way people do: spec.disks[0].size.
func joinPath(parts []string) string {
	var b strings.Builder
	for _, p := range parts {
		switch {
		case strings.HasPrefix(p, "["):
			b.WriteString(p)
		case isPlainKey(p):
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(p)
		default:
			b.WriteString("[" + quote(p) + "]")
		}
	}
	return b.String()
}

func isPlainKey(key string) bool {
	for _, c := range key {
		plain := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
		if !plain {
			return false
		}
	}
	return key != "" && len(key) <= maxName
}

// appendJSONString appends s as a JSON string.
func appendJSONString(out []byte, s string) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		return append(out, `""`...) // encoding/json takes every string
	}
	return append(out, text...)
}
