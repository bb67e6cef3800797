package folder

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/maqet/maqet/manifest"
)

// chaos draws operations on a tree whose watched root, vms, is reached by a link.
// An operation that is not possible at the time changes nothing.
type chaos struct {
	dir string
	n   int // makes every text another
}

func (c *chaos) names() []string {
	return []string{
		"vms", "rev1", "rev2", "rev1/a.yaml", "rev1/b.yaml", "rev2/a.yaml", "rev1/sub", "rev2/sub", "rev1/sub/c.yaml",
		"rev2/sub/c.yaml", "rev1/sub/deep", "rev1/sub/deep/d.json", "rev1/..data", "rev1/..1/e.yaml", "rev1/e.yaml",
		"rev1/.maqetignore", "rev2/link", "rev1/notes.txt", "else", "else/f.yaml",
	}
}

// step does one random operation. Its error is of no interest: removing what is
// not there is a part of chaos.
func (c *chaos) step(rt *rapid.T) {
	c.n++
	name := rapid.SampledFrom(c.names())
	a, b := filepath.Join(c.dir, name.Draw(rt, "a")), filepath.Join(c.dir, name.Draw(rt, "b"))
	switch rapid.SampledFrom([]string{"write", "write", "replace", "remove", "mkdir", "rename", "swap", "link", "chmod"}).Draw(rt, "op") {
	case "write":
		_ = os.MkdirAll(filepath.Dir(a), 0o700)
		_ = write(a, c.text())
	case "replace":
		_ = write(a+"~", c.text())
		_ = os.Rename(a+"~", a)
	case "remove":
		_ = os.RemoveAll(a)
	case "mkdir":
		_ = os.MkdirAll(a, 0o700)
	case "rename":
		_ = os.Rename(a, b)
	case "swap":
		_ = link([]string{"rev1", "rev2"}[c.n%2], filepath.Join(c.dir, "vms"))
	case "link":
		target, err := filepath.Rel(filepath.Dir(a), b)
		if err != nil || strings.HasPrefix(target, "..") {
			target = b // a link that leads up would leave the tree once it is moved
		}
		_ = link(target, a)
	case "chmod":
		_ = os.Chmod(a, 0o711)
	}
}

func (c *chaos) text() string {
	if c.n%4 == 0 {
		return "sub\n" // which is a pattern too
	}
	return fmt.Sprintf("%d\n", c.n)
}

// TestWatcher_anyOperations_aHintComesAfterTheLast holds the Watcher to its
// promise: who reads at hints alone has in the end read what there is. Then every
// folder must still be watched, and not one that once had its name.
func TestWatcher_anyOperations_aHintComesAfterTheLast(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir() // another in each round
		c := &chaos{dir: dir}
		for range rapid.IntRange(0, 10).Draw(rt, "before") {
			c.step(rt)
		}
		w := newWatcher(t, swift(filepath.Join(dir, "vms")))
		stop := run(t, w)
		defer stop()
		r := &receiver{t: t, w: w, paths: w.opt.Paths}
		r.next("the first look")
		for i := range rapid.IntRange(1, 30).Draw(rt, "operations") {
			c.step(rt)
			if i%7 == 6 {
				r.catchUp("some operations")
			}
		}
		r.catchUp("the last operation")
		survey, err := manifest.Look(t.Context(), r.paths)
		do(t, err)
		for _, folder := range survey.Folders {
			do(t, write(folder+"/zz-last.yaml", "new"))
			r.catchUp("a new file in " + folder)
		}
		for _, file := range survey.Files {
			if write(file, "edited at the end") == nil {
				r.catchUp("an edit of " + file)
			}
		}
	})
}
