package manifest

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// comments collects what the comments of this package say about its types.
type comments struct{ docs map[string]string }

// readComments reads the package's own source.
func readComments(t *testing.T) map[string]string {
	t.Helper()
	c := comments{docs: map[string]string{}}
	entries, err := fs.Glob(os.DirFS("."), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range entries {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			if d, ok := decl.(*ast.GenDecl); ok {
				c.declared(d)
			}
		}
	}
	return c.docs
}

func (c comments) declared(d *ast.GenDecl) {
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if st, ok := s.Type.(*ast.StructType); ok && s.Name.IsExported() {
				c.structure(s.Name.Name, d.Doc, st)
			}
		case *ast.ValueSpec:
			c.word(s)
		}
	}
}

// structure takes the comments of a type and its fields. In them the fields are called
// as in Go; here they are called as in manifests.
func (c comments) structure(name string, doc *ast.CommentGroup, st *ast.StructType) {
	keys := map[string]string{}
	for _, f := range st.Fields.List {
		if f.Tag == nil || len(f.Names) != 1 {
			return // no part of a manifest
		}
		tag, _ := strconv.Unquote(f.Tag.Value)
		key, _, _ := strings.Cut(regexp.MustCompile(`json:"([^"]*)"`).FindStringSubmatch(tag)[1], ",")
		keys[f.Names[0].Name] = key
	}
	c.put(name, strings.Replace(reword(text(doc), keys), name+" ", "It ", 1))
	last := ""
	for _, f := range st.Fields.List {
		field := f.Names[0].Name
		if own := text(f.Doc); own != "" {
			last = own
		} else if !regexp.MustCompile(`\b` + field + `\b`).MatchString(last) {
			continue // the comment before is not about this one as well
		}
		c.put(name+"."+field, reword(last, keys))
	}
}

// word takes the comment of a constant that is a word of an enum.
func (c comments) word(s *ast.ValueSpec) {
	kind, ok := s.Type.(*ast.Ident)
	if !ok || len(s.Values) != 1 || s.Doc == nil {
		return
	}
	if lit, ok := s.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
		word, _ := strconv.Unquote(lit.Value)
		c.put(kind.Name+"="+word, reword(text(s.Doc), map[string]string{s.Names[0].Name: word}))
	}
}

func (c comments) put(key, doc string) {
	if doc != "" {
		c.docs[key] = doc
	}
}

// text is a comment with each paragraph in one line.
func text(doc *ast.CommentGroup) string {
	if doc == nil {
		return ""
	}
	paragraphs := strings.Split(strings.TrimSpace(doc.Text()), "\n\n")
	for i, p := range paragraphs {
		paragraphs[i] = strings.Join(strings.Fields(p), " ")
	}
	return strings.Join(paragraphs, "\n\n")
}

// reword calls things by other names, unless a kind of object is meant.
func reword(doc string, names map[string]string) string {
	return regexp.MustCompile(`\b[A-Z]\w*\b( objects?\b)?`).ReplaceAllStringFunc(doc, func(word string) string {
		if name, ok := names[word]; ok {
			return name
		}
		return word
	})
}

// collect takes over what concerns a type and all that are in it.
func collect(docs map[string]string, t reflect.Type, used map[string]string) {
	take := func(key string) {
		if doc, ok := docs[key]; ok {
			used[key] = doc
		}
	}
	switch s := shapeOf(t); {
	case t.Kind() == reflect.Pointer, t.Kind() == reflect.Slice, t.Kind() == reflect.Map:
		collect(docs, t.Elem(), used)
	case s.kind == shapeObject:
		take(t.Name())
		for f := range t.Fields() {
			take(t.Name() + "." + f.Name)
			collect(docs, f.Type, used)
		}
	case s.enum != nil:
		for _, word := range s.enum.allowed {
			take(t.Name() + "=" + word)
		}
	}
}

func TestExplainJSON_saysWhatTheCommentsSay(t *testing.T) {
	docs := readComments(t)
	used := map[string]string{}
	for _, kind := range Kinds() {
		collect(docs, typeOf(kind), used)
	}
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(used); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("explain.json", want.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want.String(), string(docsText)); diff != "" {
		t.Errorf("explain.json is not what the comments say (write it anew with: make golden):\n%s", diff)
	}
}

func TestExplain_everyKey_isExplained(t *testing.T) {
	var walk func(k *Key)
	walk = func(k *Key) {
		if k.Doc == "" || k.Type == "" {
			t.Errorf("%s (%s) is not explained: give the Go field a comment", k.Path, k.Type)
		}
		for i := range k.Keys {
			walk(&k.Keys[i])
		}
	}
	for _, kind := range Kinds() {
		k := Explain(kind)
		walk(&k)
	}
}

func TestKeyFind_paths_leadToKeysOrToTheNearest(t *testing.T) {
	root := Explain(KindVirtualMachine)
	for path, want := range map[string]string{
		"": "", "spec": "spec", "spec.disks": "spec.disks[]", "spec.disks[].size": "spec.disks[].size", "spec.disks.throttle.iops": "spec.disks[].throttle.iops",
		"metadata.labels": "metadata.labels[]", "spec.powerState": "spec.powerState",
	} {
		if k, unknown := root.Find(path); k.Path != want || unknown != "" {
			t.Errorf("Find(%q) = %q, %q; want %q", path, k.Path, unknown, want)
		}
	}
	k, unknown := root.Find("spec.memory.sise")
	if k.Path != "spec.memory" || unknown != "sise" || !strings.Contains(k.Suggest(unknown), "size") {
		t.Errorf("Find(spec.memory.sise) = %q, %q, hint %q", k.Path, unknown, k.Suggest(unknown))
	}
}
