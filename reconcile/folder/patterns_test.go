package folder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestWatcher_waysToChange_areHinted changes a folder in all the ways that people
// and programs do. Every step must be hinted at by itself.
func TestWatcher_waysToChange_areHinted(t *testing.T) {
	type step = func(dir string) error
	tests := []struct {
		name  string
		files []string          // in dir, which holds the folder vms
		links map[string]string // name to target
		watch string            // absent: vms
		steps []step
	}{
		{name: "written in place, twice", files: []string{"vms/a.yaml"}, steps: []step{
			func(dir string) error { return write(dir+"/vms/a.yaml", "1") },
			func(dir string) error { return write(dir+"/vms/a.yaml", "2") },
		}},
		{name: "temporary file renamed over", files: []string{"vms/a.yaml"}, steps: []step{
			func(dir string) error { return write(dir+"/vms/.a.yaml.tmp", "1") }, // no manifest
			func(dir string) error { return os.Rename(dir+"/vms/.a.yaml.tmp", dir+"/vms/a.yaml") },
			func(dir string) error { return write(dir+"/vms/a.yaml", "2") },
		}},
		{name: "backup, then written anew", files: []string{"vms/a.yaml"}, steps: []step{
			func(dir string) error { return os.Rename(dir+"/vms/a.yaml", dir+"/vms/a.yaml~") },
			func(dir string) error { return write(dir+"/vms/a.yaml", "new") },
			func(dir string) error { return os.Remove(dir + "/vms/a.yaml~") },
		}},
		{name: "touched and made unreadable for others", files: []string{"vms/a.yaml"}, steps: []step{
			func(dir string) error { return os.Chtimes(dir+"/vms/a.yaml", time.Time{}, time.Unix(1e9, 0)) },
			func(dir string) error { return os.Chmod(dir+"/vms/a.yaml", 0o640) },
		}},
		{name: "file made and removed", steps: []step{
			func(dir string) error { return write(dir+"/vms/new.json", "{}") },
			func(dir string) error { return os.Remove(dir + "/vms/new.json") },
		}},
		{name: "folders made at once, deep down", steps: []step{
			func(dir string) error { return os.MkdirAll(dir+"/vms/a/b/c/d", 0o700) },
			func(dir string) error { return write(dir+"/vms/a/b/c/d/x.yaml", "1") },
			func(dir string) error { return write(dir+"/vms/a/b/y.yaml", "1") },
			func(dir string) error { return os.Rename(dir+"/vms/a/b", dir+"/vms/b") },
			func(dir string) error { return write(dir+"/vms/b/c/d/x.yaml", "2") },
			func(dir string) error { return os.RemoveAll(dir + "/vms/b") },
		}},
		{name: "folder moved in and out", files: []string{"outside/sub/a.yaml"}, steps: []step{
			func(dir string) error { return os.Rename(dir+"/outside", dir+"/vms/inside") },
			func(dir string) error { return write(dir+"/vms/inside/sub/a.yaml", "2") },
			func(dir string) error { return os.Rename(dir+"/vms/inside", dir+"/outside") },
		}},
		{name: "folder deleted and made again", files: []string{"vms/a.yaml"}, steps: []step{
			func(dir string) error { return os.RemoveAll(dir + "/vms") },
			func(dir string) error { return os.Mkdir(dir+"/vms", 0o700) },
			func(dir string) error { return write(dir+"/vms/a.yaml", "again") },
		}},
		{name: "folder replaced by a rename", files: []string{"vms/a.yaml", "next/a.yaml"}, steps: []step{
			func(dir string) error { return os.Rename(dir+"/vms", dir+"/old") },
			func(dir string) error { return os.Rename(dir+"/next", dir+"/vms") },
			func(dir string) error { return write(dir+"/vms/a.yaml", "2") },
		}},
		{name: "folder above replaced", files: []string{"repo/deep/vms/a.yaml", "repo2/deep/vms/a.yaml"}, watch: "repo/deep/vms", steps: []step{
			func(dir string) error { return os.Rename(dir+"/repo", dir+"/repo0") },
			func(dir string) error { return os.Rename(dir+"/repo2", dir+"/repo") },
			func(dir string) error { return write(dir+"/repo/deep/vms/a.yaml", "2") },
		}},
		{name: "path made later", watch: "not/yet/there", steps: []step{
			func(dir string) error { return os.MkdirAll(dir+"/not/yet", 0o700) },
			func(dir string) error { return os.Mkdir(dir+"/not/yet/there", 0o700) },
			func(dir string) error { return write(dir+"/not/yet/there/a.yaml", "1") },
			func(dir string) error { return os.RemoveAll(dir + "/not") },
			func(dir string) error { return os.MkdirAll(dir+"/not/yet/there", 0o700) },
			func(dir string) error { return write(dir+"/not/yet/there/a.yaml", "2") },
		}},
		{name: "git-sync: link of the root swapped", files: []string{"rev1/vms/a.yaml", "rev2/vms/a.yaml", "rev2/vms/b.yaml"}, links: map[string]string{"current": "rev1"}, watch: "current/vms", steps: []step{
			func(dir string) error { return link("rev2", dir+"/current") },
			func(dir string) error { return write(dir+"/rev2/vms/b.yaml", "2") },
			func(dir string) error { return link("rev1", dir+"/current") },
			func(dir string) error { return write(dir+"/rev1/vms/a.yaml", "2") },
		}},
		{name: "ConfigMap: ..data swapped", files: []string{"vms/..1/a.yaml", "vms/..2/a.yaml", "vms/..2/b.yaml"}, links: map[string]string{"vms/..data": "..1", "vms/a.yaml": "..data/a.yaml"}, steps: []step{
			func(dir string) error { return link("..2", dir+"/vms/..data") },
			func(dir string) error { return link("..data/b.yaml", dir+"/vms/b.yaml") },
			func(dir string) error { return write(dir+"/vms/..2/b.yaml", "2") },
		}},
		{name: "links to a folder and a file elsewhere", files: []string{"else/where/a.yaml", "else/file.txt"}, links: map[string]string{"vms/sub": "../else/where", "vms/f.yaml": "../else/file.txt"}, steps: []step{
			func(dir string) error { return write(dir+"/else/where/a.yaml", "2") },
			func(dir string) error { return write(dir+"/else/file.txt", "2") },
			func(dir string) error { return write(dir+"/else/where/b.yaml", "1") },
			func(dir string) error { return os.RemoveAll(dir + "/else") },
			func(dir string) error { return os.MkdirAll(dir+"/else/where", 0o700) },
			func(dir string) error { return write(dir+"/else/where/c.yaml", "1") },
		}},
		{name: "link that leads nowhere yet", links: map[string]string{"vms/sub": "../a/b"}, steps: []step{
			func(dir string) error { return os.MkdirAll(dir+"/a/b", 0o700) },
			func(dir string) error { return write(dir+"/a/b/c.yaml", "1") },
		}},
		{name: "a file alone, whatever its name", files: []string{"vms/machine.conf"}, watch: "vms/machine.conf", steps: []step{
			func(dir string) error { return write(dir+"/vms/machine.conf", "2") },
			func(dir string) error { return os.Rename(dir+"/vms/machine.conf", dir+"/vms/other") },
			func(dir string) error { return link("other", dir+"/vms/machine.conf") },
			func(dir string) error { return write(dir+"/vms/other", "3") },
		}},
		{name: "what is ignored changes", files: []string{"vms/out/a.yaml"}, steps: []step{
			func(dir string) error { return write(dir+"/vms/.maqetignore", "out\n") },
			func(dir string) error { return write(dir+"/vms/out/a.yaml", "unseen") },
			func(dir string) error { return os.Remove(dir + "/vms/.maqetignore") },
			func(dir string) error { return write(dir+"/vms/out/a.yaml", "seen") },
		}},
		{name: "a file becomes a folder", files: []string{"vms/a.yaml"}, steps: []step{
			func(dir string) error { return os.Remove(dir + "/vms/a.yaml") },
			func(dir string) error { return os.Mkdir(dir+"/vms/a.yaml", 0o700) },
			func(dir string) error { return write(dir+"/vms/a.yaml/b.yaml", "1") },
		}},
		{name: "the root is a link to itself, then a folder", links: map[string]string{"loop": "loop"}, watch: "loop", steps: []step{
			func(dir string) error { return os.Remove(dir + "/loop") },
			func(dir string) error { return os.Mkdir(dir+"/loop", 0o700) },
			func(dir string) error { return write(dir+"/loop/a.yaml", "1") },
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			do(t, os.Mkdir(dir+"/vms", 0o700))
			for _, name := range tt.files {
				plant(t, filepath.Join(dir, name), name)
			}
			for name, target := range tt.links {
				do(t, os.Symlink(target, filepath.Join(dir, name)))
			}
			watch := "vms"
			if tt.watch != "" {
				watch = tt.watch
			}
			r := receive(t, swift(filepath.Join(dir, watch)))
			for i, step := range tt.steps {
				do(t, step(dir))
				r.catchUp(fmt.Sprintf("step %d of %q", i+1, tt.name))
			}
			if got := r.w.Status(); got.Mode != ModeInotify || got.Reason != "" || got.Watched == 0 {
				t.Errorf("status %+v", got)
			}
		})
	}
}

func TestWatcher_gitCheckout_endsWithAHint(t *testing.T) {
	dir := t.TempDir()
	tree := func(branch string, files int) {
		do(t, os.RemoveAll(dir+"/vms/one"), os.RemoveAll(dir+"/vms/two"))
		for i := range files {
			plant(t, filepath.Join(dir, "vms", []string{"one", "two"}[i%2], "sub", string(rune('a'+i%26))+branch+".yaml"), branch)
		}
	}
	tree("main", 40)
	r := receive(t, swift(dir+"/vms"))
	for i := range 20 {
		tree([]string{"topic", "main"}[i%2], 20+i)
	}
	r.catchUp("checkouts")
	do(t, write(dir+"/vms/two/sub/bmain.yaml", "edited"))
	r.catchUp("an edit after checkouts")
}

func TestWatcher_manyQuickEdits_areCollectedAndTheLastIsNeverLost(t *testing.T) {
	path := t.TempDir() + "/a.yaml"
	do(t, write(path, "start"))
	opt := swift(path)
	opt.Debounce, opt.MaxDelay = 20*time.Millisecond, 40*time.Millisecond
	r := receive(t, opt)
	start, hints := time.Now(), r.hints
	edited := make(chan error, 1)
	go func() {
		for i := range 1000 {
			text := strconv.Itoa(i)
			err := write(path, text)
			if i%3 == 0 {
				err = errors.Join(write(path+".tmp", text), os.Rename(path+".tmp", path))
			}
			if err != nil {
				edited <- err
				return
			}
		}
		edited <- nil
	}()
	for busy := true; busy; {
		select {
		case err := <-edited:
			do(t, err)
			busy = false
		case <-r.w.Changes():
			r.hints++
			r.seen = content(t, r.paths)
		}
	}
	r.catchUp("1,000 edits")
	if got, most := r.hints-hints, int(time.Since(start)/opt.Debounce)+1; got > most {
		t.Errorf("%d hints, want at most %d: one for each quiet time", got, most)
	}
}
