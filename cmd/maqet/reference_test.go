package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	diff "github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
)

var update = flag.Bool("update", false, "write docs/reference.md anew")

// referenceHead is what stands before the fields.
const referenceHead = `# Reference of manifests

Every field of every kind, with what changing it costs on a running machine. This file is generated (` + "`make golden`" + `) from the
types and from the table by which changes are planned; ` + "`maqet explain vm.spec.memory`" + ` says the same in a terminal.
[manifests.md](manifests.md) is the introduction.

A field that is not marked *required* may be left out.

`

// referenceLegend explains the words of the tables.
func referenceLegend() string {
	var b strings.Builder
	b.WriteString("**Change** is the price of another value:\n\n| change | what it means |\n| --- | --- |\n")
	for _, c := range []reconcile.Class{
		reconcile.ClassNone, reconcile.ClassMetadata, reconcile.ClassLive, reconcile.ClassNextBoot, reconcile.ClassRestart, reconcile.ClassRecreate, reconcile.ClassDataLoss,
	} {
		fmt.Fprintf(&b, "| `%s` | %s |\n", c, c.Words())
	}
	b.WriteString("\n**Seen by** is how the present value is found out:\n\n| seen by | what it means |\n| --- | --- |\n")
	for _, s := range seenWays() {
		fmt.Fprintf(&b, "| %s | %s |\n", s, s.Words())
	}
	return b.String() + "\n"
}

// seenWays are the ways that the table of fields knows.
func seenWays() []reconcile.Seen {
	var ways []reconcile.Seen
	for _, f := range reconcile.Fields() {
		if !slices.Contains(ways, f.Seen) {
			ways = append(ways, f.Seen)
		}
	}
	slices.Sort(ways)
	return ways
}

// reference is the whole text.
func reference() string {
	var b strings.Builder
	b.WriteString(referenceHead + referenceLegend())
	for _, kind := range manifest.Kinds() {
		x := explain(kind)
		fmt.Fprintf(&b, "## %s\n\n%s\n\n", kind, asMarkdown(x.Doc))
		writeSection(&b, &x, kind == manifest.KindVirtualMachine)
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// writeSection writes the table of a mapping, then those of the mappings in it.
func writeSection(b *strings.Builder, x *explained, priced bool) {
	if priced {
		b.WriteString("| field | type | change | seen by | meaning |\n| --- | --- | --- | --- | --- |\n")
	} else {
		b.WriteString("| field | type | meaning |\n| --- | --- | --- |\n")
	}
	for i := range x.Keys {
		writeRow(b, &x.Keys[i], priced)
	}
	b.WriteString("\n")
	for i := range x.Keys {
		k := &x.Keys[i]
		if len(k.Keys) == 0 {
			continue
		}
		fmt.Fprintf(b, "### %s\n\n%s\n\n", k.Path, asMarkdown(k.Doc))
		writeSection(b, k, priced)
	}
}

func writeRow(b *strings.Builder, k *explained, priced bool) {
	meaning := firstParagraph(asMarkdown(k.Doc))
	if k.Required {
		meaning = "*required*. " + meaning
	}
	if len(k.Keys) > 0 {
		meaning += " See below."
	}
	for _, v := range k.Values {
		meaning += "<br>`" + v.Word + "`"
		if v.Doc != "" {
			meaning += ": " + strings.TrimPrefix(asMarkdown(v.Doc), v.Word+" ")
		}
	}
	if k.Default != "" && !strings.Contains(k.Doc, "Absent") {
		meaning += " Absent: " + k.Default + "."
	}
	fmt.Fprintf(b, "| `%s` | %s ", k.Name, k.Type)
	if priced {
		fmt.Fprintf(b, "| %s | %s ", cmp.Or(string(k.Change), "-"), cmp.Or(string(k.Observed), "-"))
	}
	fmt.Fprintf(b, "| %s |\n", meaning)
}

// asMarkdown keeps what a comment says from being read as marks.
func asMarkdown(doc string) string {
	return strings.NewReplacer("|", `\|`, "*", `\*`, "_", `\_`, "<", "&lt;").Replace(doc)
}

func TestReference_isWhatTypesAndTableSay(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "reference.md")
	want := reference()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := diff.Diff(want, string(have)); d != "" {
		t.Errorf("docs/reference.md is not what types and table say (write it anew with: make golden):\n%s", d)
	}
}

func TestExplain_everyPricedField_isExplained(t *testing.T) {
	x := explain(manifest.KindVirtualMachine)
	for _, f := range reconcile.Fields() {
		k := x.at(f.Path)
		if k == nil {
			t.Errorf("%s has a price and is no field of a manifest", f.Path)
			continue
		}
		if k.Change != f.Class || k.Observed != f.Seen {
			t.Errorf("%s is explained as %s, %s; the table says %s, %s", f.Path, k.Change, k.Observed, f.Class, f.Seen)
		}
		if f.Class.Words() == string(f.Class) || f.Seen.Words() == string(f.Seen) {
			t.Errorf("%s: no words for %s or %s", f.Path, f.Class, f.Seen)
		}
	}
}
