package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
)

func readDoc(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section is what stands below a heading, up to the next one of its level.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, rest, found := strings.Cut(text, "\n"+heading+"\n")
	if !found {
		t.Fatalf("there is no %q", heading)
	}
	level, _, _ := strings.Cut(heading, " ")
	body, _, _ := strings.Cut(rest, "\n"+level+" ")
	return body
}

// keyRow is a row of a table of keys: the paths it names, and its last cell.
type keyRow struct {
	paths []string
	last  string
}

// keyRows reads the rows whose first cell has paths in backquotes.
func keyRows(text string) []keyRow {
	var rows []keyRow
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		row := keyRow{last: strings.TrimSpace(cells[len(cells)-1])}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[0], -1) {
			row.paths = append(row.paths, m[1])
		}
		rows = append(rows, row)
	}
	return rows
}

func TestManifestDocs_keys_areThoseOfTheTypes(t *testing.T) {
	text := readDoc(t, "docs/manifests.md")
	tests := map[string]reflect.Type{
		"## VirtualMachine": reflect.TypeFor[manifest.VirtualMachine](),
		"## Snapshot":       reflect.TypeFor[manifest.Snapshot](),
		"## Image":          reflect.TypeFor[manifest.Image](),
	}
	for heading, kind := range tests {
		t.Run(heading, func(t *testing.T) {
			var want, got []string
			for _, path := range manifest.PathsOf(kind) {
				// What every object begins with is told in the text above the tables.
				if path != "apiVersion" && path != "kind" {
					want = append(want, path)
				}
			}
			for _, row := range keyRows(section(t, text, heading)) {
				got = append(got, row.paths...)
			}
			if kind != tests["## VirtualMachine"] {
				// Labels and annotations are told of once, with machines.
				want = slices.DeleteFunc(want, func(path string) bool { return path == "metadata.labels" || path == "metadata.annotations" })
			}
			slices.Sort(want)
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("documented keys differ from the types (-types +docs):\n%s", diff)
			}
		})
	}
}

// costWords are the words of the column "when" for each class.
func costWords() map[reconcile.Class]string {
	return map[reconcile.Class]string{
		reconcile.ClassNone: "at once", reconcile.ClassMetadata: "at once", reconcile.ClassLive: "live",
		reconcile.ClassNextBoot: "next boot", reconcile.ClassRestart: "restart",
		reconcile.ClassRecreate: "a new name is a new machine", reconcile.ClassDataLoss: "data-loss",
	}
}

func TestManifestDocs_costOfEachKey_isThePlanners(t *testing.T) {
	class, seed := map[string]reconcile.Class{}, map[string]bool{}
	for _, f := range reconcile.Fields() {
		path := strings.TrimSuffix(f.Path, "[]")
		class[path], seed[path] = f.Class, f.Seen == reconcile.SeenSeed
	}
	for _, row := range keyRows(section(t, readDoc(t, "docs/manifests.md"), "## VirtualMachine")) {
		// What a class means for a key may be said behind its word.
		row.last, _, _ = strings.Cut(row.last, ": ")
		for _, path := range row.paths {
			got, known := class[path]
			if !known {
				t.Errorf("the planner has no field %s", path)
				continue
			}
			want := costWords()[got]
			if seed[path] {
				want = "`provision`"
			}
			if row.last != want {
				t.Errorf("%s: docs say %q, the planner's class %s is %q", path, row.last, got, want)
			}
		}
	}
}

// commands are the paths of all commands and help topics below root.
func commands(root *cobra.Command) (runnable, topics []string) {
	for _, c := range root.Commands() {
		path := strings.TrimPrefix(c.CommandPath(), "maqet ")
		switch {
		case c.HasSubCommands():
			below, _ := commands(c)
			runnable = append(runnable, below...)
		case c.Runnable():
			runnable = append(runnable, path)
		default:
			topics = append(topics, path)
		}
	}
	slices.Sort(runnable)
	return runnable, topics
}

func testRoot() *cobra.Command {
	env, _, _ := pipes()
	return newRoot(&app{env: env})
}

func TestReadme_commands_areThoseOfTheBinary(t *testing.T) {
	var listed []string
	for _, row := range keyRows(section(t, readDoc(t, "README.md"), "## Commands")) {
		for _, path := range row.paths {
			listed = append(listed, commandsOf(path)...)
		}
	}
	slices.Sort(listed)
	listed = slices.Compact(listed)
	want, _ := commands(testRoot())
	want = slices.DeleteFunc(want, func(name string) bool { return name == "help" })
	if diff := cmp.Diff(want, listed); diff != "" {
		t.Errorf("README's commands differ from the binary's (-binary +README):\n%s", diff)
	}
}

// commandsOf reads one cell of README's table: "start stop", "hold VM",
// "snapshot create/list". What is no lower-case word is an argument.
func commandsOf(cell string) []string {
	var names []string
	for word := range strings.FieldsSeq(cell) {
		if !regexp.MustCompile(`^[a-z/]+$`).MatchString(word) {
			break
		}
		if !strings.Contains(word, "/") {
			names = append(names, word)
			continue
		}
		parent := names[len(names)-1]
		names = names[:len(names)-1]
		for sub := range strings.SplitSeq(word, "/") {
			names = append(names, parent+" "+sub)
		}
	}
	return names
}

func TestReadme_exitCodes_areThoseOfTheBinary(t *testing.T) {
	_, rest, found := strings.Cut(readDoc(t, "README.md"), "Exit codes: ")
	if !found {
		t.Fatal("README names no exit codes")
	}
	text, _, _ := strings.Cut(rest, "(`")
	var listed []int
	for part := range strings.SplitSeq(text, "·") {
		number, _, _ := strings.Cut(strings.TrimSpace(part), " ")
		code, err := strconv.Atoi(number)
		if err != nil {
			t.Fatalf("%q: %v", part, err)
		}
		listed = append(listed, code)
	}
	if diff := cmp.Diff(allCodes(), listed); diff != "" {
		t.Errorf("README's exit codes differ (-binary +README):\n%s", diff)
	}
}

func TestReadme_example_isValid(t *testing.T) {
	_, rest, found := strings.Cut(readDoc(t, "README.md"), "```yaml\n")
	if !found {
		t.Fatal("README has no example")
	}
	example, _, _ := strings.Cut(rest, "```")
	file := filepath.Join(t.TempDir(), "web.yaml")
	if err := os.WriteFile(file, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := manifest.Load(t.Context(), []string{file}, manifest.LoadOptions{Arch: hostArch()})
	if err != nil || len(set.VMs()) != 1 {
		t.Errorf("machines %v, error %v", set.VMs(), err)
	}
}

func TestDocs_commandLines_areUnderstood(t *testing.T) {
	for _, path := range []string{"README.md", "docs/gitops.md", "docs/manifests.md", "docs/operations.md"} {
		for _, m := range regexp.MustCompile("(?m)^(maqet [^\n]*)$|`(maqet [^`]*)`").FindAllStringSubmatch(readDoc(t, path), -1) {
			line, _, _ := strings.Cut(m[1]+m[2], "#")
			args := strings.Fields(line)[1:]
			cmd, rest, err := testRoot().Find(args)
			if err != nil {
				t.Errorf("%s: %s: %v", path, line, err)
				continue
			}
			if err := cmd.ParseFlags(rest); err != nil {
				t.Errorf("%s: %s: %v", path, line, err)
			}
		}
	}
}

func TestHelp_everyCommand_saysWhatItDoesAndGivesExamples(t *testing.T) {
	var check func(*cobra.Command)
	check = func(cmd *cobra.Command) {
		for _, c := range cmd.Commands() {
			check(c)
		}
		if !cmd.Runnable() || cmd.Name() == "help" {
			return
		}
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: short help is %q", cmd.CommandPath(), cmd.Short)
		}
		if !cmd.HasSubCommands() && !strings.Contains(cmd.Example, "maqet "+cmd.Name()) && !strings.Contains(cmd.Example, cmd.CommandPath()) {
			t.Errorf("%s: examples are %q", cmd.CommandPath(), cmd.Example)
		}
		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
			if len([]rune(strings.TrimRight(line, "\n"))) > 90 {
				t.Errorf("%s: a line of the help is too long: %s", cmd.CommandPath(), line)
			}
		}
	}
	check(testRoot())
}

func TestHelp_eachTopic_isReachable(t *testing.T) {
	_, topics := commands(testRoot())
	if len(topics) == 0 {
		t.Fatal("there are no topics")
	}
	for _, topic := range topics {
		env, out, _ := pipes()
		env.home = t.TempDir()
		if code := run(t.Context(), []string{"help", topic}, env); code != exitDone || !bytes.Contains(out.Bytes(), []byte("\n")) {
			t.Errorf("help %s: exit code %d, prints %q", topic, code, out)
		}
	}
}
