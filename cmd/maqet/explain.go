package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
)

// explained is a key of a manifest with what changing it means.
type explained struct {
	manifest.Key
	// Change is the class of a change, Observed how the present value is found out;
	// empty for a mapping, whose keys say it.
	Change   reconcile.Class `json:"change,omitempty"`
	Observed reconcile.Seen  `json:"observed,omitempty"`
	// Default is what absence means, where that is fixed.
	Default string      `json:"default,omitempty"`
	Keys    []explained `json:"keys,omitempty"`
}

func newExplain(a *app) *cobra.Command {
	var (
		out       outputFlag
		recursive bool
	)
	cmd := &cobra.Command{
		Use:   "explain [KIND[.FIELD]...]",
		Short: "Say what a manifest's fields mean and what changing them costs",
		Long: `Say what a field of a manifest means, which values it may have, and what becomes
of a running machine when it is changed. Without an argument the kinds are listed.
The same for all fields at once is in docs/reference.md.`,
		Example: "  maqet explain\n  maqet explain vm.spec.disks\n  maqet explain vm.spec.memory.size\n  maqet explain img --recursive",
		Args:    oneField, ValidArgsFunction: completeFields,
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := out.format()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return explainKinds(a, f)
			}
			kind, key, err := explainedKey(args[0])
			if err != nil {
				return err
			}
			if f.structured() {
				return f.write(a.env.out, key)
			}
			printExplained(a.env.out, kind, key, recursive)
			return nil
		},
	}
	out.add(cmd, "json", "yaml")
	cmd.Flags().BoolVar(&recursive, "recursive", false, "show the names of all fields below, without their texts")
	return cmd
}

// oneField takes a field, or nothing.
func oneField(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef("%q: one field at a time, such as vm.spec.memory", args[1])
	}
	return nil
}

func explainKinds(a *app, f format) error {
	if f.structured() {
		var all []explained
		for _, kind := range manifest.Kinds() {
			all = append(all, explain(kind))
		}
		return f.write(a.env.out, all)
	}
	var rows [][]string
	for _, kind := range manifest.Kinds() {
		rows = append(rows, []string{shortKind(kind), string(kind), strings.TrimPrefix(manifest.Explain(kind).Doc, "It is ")})
	}
	printTable(a.env.out, []string{"SHORT", "KIND", "MEANING"}, rows)
	return nil
}

// shortKind is what people call a kind.
func shortKind(kind manifest.Kind) string {
	switch kind {
	case manifest.KindSnapshot:
		return "snap"
	case manifest.KindImage:
		return "img"
	case manifest.KindVirtualMachine:
		return "vm"
	default:
		return string(kind)
	}
}

// explain is a kind with what changing its fields means.
func explain(kind manifest.Kind) explained {
	prices := map[string]*reconcile.Field{}
	if kind == manifest.KindVirtualMachine {
		fields := reconcile.Fields()
		for i := range fields {
			prices[fields[i].Path] = &fields[i]
		}
	}
	return explainKey(manifest.Explain(kind), prices)
}

func explainKey(key manifest.Key, prices map[string]*reconcile.Field) explained {
	x := explained{Key: key}
	if f := prices[key.Path]; f != nil {
		x.Change, x.Observed, x.Default = f.Class, f.Seen, f.Absent
	}
	for _, k := range key.Keys {
		x.Keys = append(x.Keys, explainKey(k, prices))
	}
	x.Key.Keys = nil
	return x
}

// explainedKey is what a person names as vm.spec.memory, or as spec.memory.
func explainedKey(name string) (manifest.Kind, explained, error) {
	word, path, _ := strings.Cut(name, ".")
	kind := kindOf(word)
	if kind == "" && (word == "spec" || word == "metadata") {
		kind, path = manifest.KindVirtualMachine, name
	}
	if kind == "" {
		return "", explained{}, usagef("%q: no kind begins it; the kinds are vm, snap and img, and a field is named like vm.spec.memory", name)
	}
	root := manifest.Explain(kind)
	found, unknown := root.Find(path)
	if unknown != "" {
		where := found.Path
		if where == "" {
			where = string(kind)
		}
		hint := found.Suggest(unknown)
		if hint == "" {
			hint = "see maqet explain " + strings.TrimSuffix(shortKind(kind)+"."+found.Path, ".")
		}
		return "", explained{}, usagef("%s has no field %q; %s", where, unknown, hint)
	}
	whole := explain(kind)
	return kind, *whole.at(found.Path), nil
}

// at is the key with that path, which there is.
func (x *explained) at(path string) *explained {
	if x.Path == path {
		return x
	}
	for i := range x.Keys {
		if found := x.Keys[i].at(path); found != nil {
			return found
		}
	}
	return nil
}

// textWidth is how wide texts are written: narrow enough to be read, and to be quoted.
const textWidth = 76

func printExplained(out io.Writer, kind manifest.Kind, x explained, recursive bool) {
	fmt.Fprintf(out, "KIND:      %s (%s)\nVERSION:   %s\n", kind, shortKind(kind), manifest.APIVersion)
	if x.Path != "" {
		fmt.Fprintf(out, "FIELD:     %s <%s>%s\n", x.Path, x.Type, requiredMark(&x))
	}
	if x.Change != "" {
		printHanging(out, "CHANGE:    ", string(x.Change)+": "+x.Change.Words())
		printHanging(out, "OBSERVED:  ", x.Observed.Words())
	}
	if x.Default != "" {
		printHanging(out, "ABSENT:    ", x.Default)
	}
	fmt.Fprintln(out, "\nDESCRIPTION:")
	printIndented(out, x.Doc, 4)
	if len(x.Values) > 0 {
		fmt.Fprintln(out, "\nVALUES:")
		for _, v := range x.Values {
			fmt.Fprintln(out, "    "+v.Word)
			printIndented(out, v.Doc, 8)
		}
	}
	if len(x.Keys) == 0 {
		return
	}
	fmt.Fprintln(out, "\nFIELDS:")
	if recursive {
		printTree(out, x.Keys, 4)
		return
	}
	for i := range x.Keys {
		k := &x.Keys[i]
		fmt.Fprintf(out, "    %s <%s>%s\n", k.Name, k.Type, requiredMark(k))
		printIndented(out, firstParagraph(k.Doc), 8)
		fmt.Fprintln(out)
	}
}

// printTree prints the names of keys and of all below.
func printTree(out io.Writer, keys []explained, indent int) {
	for i := range keys {
		k := &keys[i]
		line := fmt.Sprintf("%s%s <%s>%s", strings.Repeat(" ", indent), k.Name, k.Type, requiredMark(k))
		if k.Change != "" {
			line += " " + string(k.Change)
		}
		fmt.Fprintln(out, line)
		printTree(out, k.Keys, indent+2)
	}
}

func requiredMark(x *explained) string {
	if x.Required {
		return " -required-"
	}
	return ""
}

func firstParagraph(doc string) string {
	first, _, _ := strings.Cut(doc, "\n\n")
	return first
}

// printIndented prints paragraphs of words.
func printIndented(out io.Writer, words string, indent int) {
	if words == "" {
		return
	}
	for line := range strings.SplitSeq(text.WrapSoft(words, textWidth-indent), "\n") {
		fmt.Fprintln(out, strings.TrimRight(strings.Repeat(" ", indent)+line, " "))
	}
}

// printHanging prints words behind a label, and their further lines below them.
func printHanging(out io.Writer, label, words string) {
	lines := strings.Split(text.WrapSoft(words, textWidth-len(label)), "\n")
	for i, line := range lines {
		if i > 0 {
			label = strings.Repeat(" ", len(label))
		}
		fmt.Fprintln(out, strings.TrimRight(label+line, " "))
	}
}

// completeFields completes a field by its words so far.
func completeFields(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	cut := strings.LastIndexByte(prefix, '.')
	if cut < 0 {
		return []string{"vm", "snap", "img"}, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	_, parent, err := explainedKey(prefix[:cut])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for i := range parent.Keys {
		if name := prefix[:cut+1] + parent.Keys[i].Name; strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
