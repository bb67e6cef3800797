package arrows

import (
	"fmt"
	"slices"
	"strings"
)

// Module is the import path all rooms are below.
const Module = "github.com/maqet/maqet"

// Package is what one package imports; test files count as the package.
type Package struct {
	Path    string
	Imports []string
}

// anything in a room's list means that the room stands at the top.
const anything = "*"

// allowed lists, for each room, the rooms it may import. A package belongs to the
// longest name that is its path or a folder above it. Every room may import itself.
func allowed() map[string][]string {
	return map[string][]string{
		"cmd":         {"reconcile", "state", "driver", "driver/qmp", "driver/qga", "driver/disk", "driver/qemu", "manifest", "internal"},
		"reconcile":   {"state", "driver", "manifest", "internal"},
		"driver/qemu": {"driver", "driver/qmp", "driver/qga", "driver/disk", "manifest", "internal"},
		"driver/qmp":  {"driver", "manifest", "internal"},
		"driver/qga":  {"internal"},
		"driver/disk": {"driver", "manifest", "internal"},
		"driver":      {"manifest", "internal"},
		"state":       {"manifest", "internal"},
		"manifest":    {"internal"},
		"internal":    {},
		"e2e":         {anything},
	}
}

// Violations returns a sentence for each import that no arrow allows, and for each
// package that lies in no room.
func Violations(packages []Package) []string {
	table := allowed()
	var found []string
	for _, p := range packages {
		from, ok := room(table, p.Path)
		if !ok {
			found = append(found, fmt.Sprintf("%s lies in no room; add the room to the table in e2e/internal/arrows", p.Path))
			continue
		}
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, Module+"/") {
				continue
			}
			to, ok := room(table, imported)
			if ok && (from == to || slices.Contains(table[from], to) || slices.Contains(table[from], anything)) {
				continue
			}
			found = append(found, fmt.Sprintf("%s imports %s, but %s may import only %v", p.Path, imported, from, table[from]))
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func room(table map[string][]string, path string) (string, bool) {
	name, ok := strings.CutPrefix(path, Module+"/")
	for ok && name != "" {
		if _, found := table[name]; found {
			return name, true
		}
		name = name[:max(strings.LastIndexByte(name, '/'), 0)]
	}
	return "", false
}
