package manifest

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// What aliases of one document may expand to. A few nested aliases can ask for
// more than any memory holds.
const (
	aliasNodes = 10_000
	aliasBytes = 1 << 20

	aliasBudgetMsg  = "the aliases of this document expand to too much"
	aliasBudgetHint = "write the values out"
)

// cost is what a value adds to a document: nodes, and bytes of text.
type cost struct{ nodes, bytes int }

// aliasBudget is what aliases have used up.
type aliasBudget struct{ spent cost }

// take spends c and is false when that is too much.
func (b *aliasBudget) take(c cost) bool {
	b.spent.nodes += c.nodes
	b.spent.bytes += c.bytes
	return b.spent.nodes <= aliasNodes && b.spent.bytes <= aliasBytes
}

// countNodes is the cost of n, or little more than the budget where it is more.
func countNodes(n *yaml.Node) cost {
	var total cost
	stack := []*yaml.Node{n}
	for len(stack) > 0 && total.nodes <= aliasNodes {
		top := target(stack[len(stack)-1])
		stack = append(stack[:len(stack)-1], top.Content...)
		total.nodes++
		total.bytes += len(top.Value)
	}
	return total
}

// target is the node an alias stands for, or n itself.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// isNull is true for an absent value and for null written out.
func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

// lookup is the value of a key of a mapping, or nil.
func lookup(n *yaml.Node, key string) *yaml.Node {
	n = target(n)
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := target(n.Content[i]); k.Kind == yaml.ScalarNode && k.Value == key {
			return target(n.Content[i+1])
		}
	}
	return nil
}

// locate is the node at a path such as spec.disks[0].size, or the nearest one
// above it that exists.
func locate(n *yaml.Node, path string) *yaml.Node {
	for path != "" {
		next, rest := step(n, path)
		if next == nil {
			return n
		}
		n, path = next, rest
	}
	return n
}

// step goes down one part of a path.
func step(n *yaml.Node, path string) (*yaml.Node, string) {
	path = strings.TrimPrefix(path, ".")
	if !strings.HasPrefix(path, "[") {
		end := strings.IndexAny(path, ".[")
		if end < 0 {
			end = len(path)
		}
		return lookup(n, path[:end]), path[end:]
	}
	if strings.HasPrefix(path, `["`) {
		quoted, err := strconv.QuotedPrefix(path[1:])
		if err != nil {
			return nil, ""
		}
		key, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, ""
		}
		return lookup(n, key), strings.TrimPrefix(path[1+len(quoted):], "]")
	}
	digits, rest, _ := strings.Cut(path[1:], "]")
	i, err := strconv.Atoi(digits)
	n = target(n)
	if err != nil || n.Kind != yaml.SequenceNode || i >= len(n.Content) {
		return nil, ""
	}
	return target(n.Content[i]), rest
}

// describe is what a node is, for "must be a list, not ...".
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return describe(target(n))
	case yaml.DocumentNode, yaml.ScalarNode:
	}
	switch n.Tag {
	case "!!null":
		return "nothing"
	case "!!str":
		return "the string " + quote(n.Value)
	case "!!bool":
		return "the boolean " + n.Value
	case "!!timestamp":
		return "the date " + shorten(n.Value)
	default:
		return "the number " + shorten(n.Value)
	}
}

// shorten is s without quotes, cut where it is very long.
func shorten(s string) string { return strings.Trim(quote(s), `"`) }
