package manifest

import (
	"reflect"
	"slices"
	"strings"
)

// PathsOf are the paths of every leaf field of t, a struct type such as
// VirtualMachine, sorted: spec.memory.size, spec.disks[].format,
// spec.machine.properties. Lists are marked by "[]"; a map is one leaf, and so
// is a list of scalars. A struct with no fields of its own is a leaf too.
func PathsOf(t reflect.Type) []string {
	paths := shapeOf(t).leaves("", nil)
	slices.Sort(paths)
	return paths
}

// leaves appends the paths of the leaves below s.
func (s *shape) leaves(prefix string, into []string) []string {
	if s.kind == shapeList && s.elem.kind == shapeObject {
		return s.elem.leaves(prefix+"[]", into)
	}
	if s.kind != shapeObject || len(s.fields) == 0 {
		return append(into, prefix)
	}
	for _, f := range s.fields {
		into = f.shape.leaves(strings.TrimPrefix(prefix+"."+f.name, "."), into)
	}
	return into
}
