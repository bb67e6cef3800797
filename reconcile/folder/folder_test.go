package folder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
)

func TestNew_badPaths_areErrorsThatNameThem(t *testing.T) {
	if _, err := New(Options{}); !errors.Is(err, ErrNoPath) {
		t.Errorf("err %v, want ErrNoPath", err)
	}
	for _, path := range []string{"vms", "-", "", "./vms", "/vms/", "/a/../vms", "/a//b"} {
		_, err := New(Options{Paths: []string{"/ok", path}})
		fault, ok := errors.AsType[*Error](err)
		if !ok || fault.Path != path || fault.Hint == "" || !errors.Is(err, ErrPath) || !strings.Contains(err.Error(), fmt.Sprintf("%q", path)) {
			t.Errorf("%q: err %v", path, err)
		}
	}
}

func TestNew_zeroOptions_haveTheDocumentedTimes(t *testing.T) {
	w := newWatcher(t, Options{Paths: []string{"/vms"}})
	got := []time.Duration{w.opt.Debounce, w.opt.MaxDelay, w.opt.Relist, w.opt.FallbackRelist}
	if want := []time.Duration{100 * time.Millisecond, time.Second, 5 * time.Minute, 2 * time.Second}; !slices.Equal(got, want) {
		t.Errorf("times %v, want %v", got, want)
	}
	if got := w.Status(); got != (Status{}) || got.Mode.String() != "starting" {
		t.Errorf("status %+v before Run", got)
	}
}

func TestRun_contextEnded_isNoError(t *testing.T) {
	w := newWatcher(t, swift(t.TempDir()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := w.Run(t.Context()); !errors.Is(err, ErrOnce) {
		t.Errorf("second Run: %v, want ErrOnce", err)
	}
}

func TestChanges_nobodyReceives_oneHintWaits(t *testing.T) {
	w := newWatcher(t, swift(t.TempDir()))
	for range 3 {
		w.hint()
	}
	<-w.Changes()
	select {
	case <-w.Changes():
		t.Error("hints pile up")
	default:
	}
}

func TestJudge_events_meanWhatTheyMay(t *testing.T) {
	t.Parallel()
	places := map[string]*place{
		"/srv":        {names: map[string]bool{"vms": true}},
		"/srv/vms":    {names: map[string]bool{"a.yaml": true, "sub": true, "..data": true, ".maqetignore": true}, listed: true},
		"/srv/vms/in": {names: map[string]bool{}, listed: true},
	}
	nothing, only := verdict{}, verdict{look: true}
	hint, anew := verdict{hint: true}, verdict{hint: true, stale: true}
	tests := []struct {
		path string
		op   fsnotify.Op
		want verdict
	}{
		{"/srv/vms/a.yaml", fsnotify.Write, hint},
		{"/srv/vms/a.yaml", fsnotify.Chmod, hint},
		{"/srv/vms/a.yaml", fsnotify.Create, anew},
		{"/srv/vms/sub", fsnotify.Rename, anew},
		{"/srv/vms/..data", fsnotify.Create | fsnotify.Chmod, anew},
		{"/srv/vms/.maqetignore", fsnotify.Write, hint},
		{"/srv/vms/new.yaml", fsnotify.Create, only},
		{"/srv/vms/folder-or-link", fsnotify.Create, only},
		{"/srv/vms/notes.txt", fsnotify.Write, nothing},
		{"/srv/vms/.a.yaml.swp", fsnotify.Create, nothing},
		{"/srv/vms/.git", fsnotify.Create, nothing},
		{"/srv/vms", fsnotify.Remove, anew},
		{"/srv/vms", fsnotify.Chmod, hint},
		{"/srv/other", fsnotify.Create, nothing},
		{"/srv/other", fsnotify.Write, nothing},
		{"/gone/x", fsnotify.Create, verdict{look: true, stale: true}},
		{"/gone/x", fsnotify.Write, only},
		{"/", structural, anew},
	}
	for _, tt := range tests {
		if got := judge(places, tt.path, tt.op); got != tt.want {
			t.Errorf("%s %v: %+v, want %+v", tt.path, tt.op, got, tt.want)
		}
	}
}

func TestNews_tooManyNames_standForEverything(t *testing.T) {
	t.Parallel()
	var n news
	n.add("/vms/first", fsnotify.Write)
	for i := range 3 * maxNames {
		n.add(fmt.Sprintf("/vms/%d", i), fsnotify.Write)
		n.add(fmt.Sprintf("/vms/%d", i), fsnotify.Chmod)
	}
	if len(n.ops) > maxNames || !n.ops[everywhere].Has(structural) {
		t.Errorf("%d names kept, %v everywhere", len(n.ops), n.ops[everywhere])
	}
	n = news{}
	n.add("/vms/a.yaml", fsnotify.Write)
	n.add("/vms/a.yaml", fsnotify.Remove)
	if diff := cmp.Diff(map[string]fsnotify.Op{"/vms/a.yaml": fsnotify.Write | fsnotify.Remove}, n.ops); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestFollow_links_noteEveryNameOnTheWay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	do(t, os.MkdirAll(dir+"/real/deep/vms", 0o700), os.MkdirAll(dir+"/x", 0o700),
		os.Symlink("real/deep", dir+"/one"), os.Symlink(dir+"/one/../deep/vms", dir+"/x/two"), os.Symlink("me", dir+"/me"))
	w := newWays()
	if at, ok := w.follow(dir + "/x/two"); !ok || at != dir+"/real/deep/vms" {
		t.Errorf("followed to %q, %v", at, ok)
	}
	for _, path := range []string{dir + "/me/vms", dir + "/none/at/all"} {
		if at, ok := w.follow(path); ok {
			t.Errorf("%s: followed to %q", path, at)
		}
	}
	got := map[string][]string{}
	for path, p := range w.places {
		if below, ok := strings.CutPrefix(path, dir); ok {
			for name := range p.names {
				got["."+below] = append(got["."+below], name)
			}
			slices.Sort(got["."+below])
		}
	}
	want := map[string][]string{".": {"me", "none", "one", "real", "x"}, "./x": {"two"}, "./real": {"deep"}, "./real/deep": {"vms"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if at, ok := w.follow("/"); !ok || at != "/" {
		t.Errorf("the root leads to %q, %v", at, ok)
	}
}

func TestView_whatDoesNotMatter_leavesTheFingerprint(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir+"/vms/a.yaml", "1")
	plant(t, dir+"/vms/.git/HEAD", "1")
	paths := []string{dir + "/vms"}
	look := func() *view {
		t.Helper()
		v, err := look(t.Context(), paths)
		do(t, err)
		return v
	}
	before := look()
	do(t, write(dir+"/vms/notes.txt", "x"), write(dir+"/vms/.git/HEAD", "2"), write(dir+"/vms/.a.yaml.swp", "x"), write(dir+"/other.yaml", "x"))
	if look().print != before.print {
		t.Error("the fingerprint changes with what is not loaded")
	}
	if _, ok := before.places[dir+"/vms/.git"]; ok {
		t.Error("a hidden folder would be watched")
	}
	seen := map[[32]byte]string{before.print: "before"}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"mode", func() error { return os.Chmod(dir+"/vms/a.yaml", 0o640) }},
		{"time", func() error { return os.Chtimes(dir+"/vms/a.yaml", time.Time{}, time.Unix(1, 0)) }},
		{"size", func() error { return write(dir+"/vms/a.yaml", "123") }},
		{"new file", func() error { return write(dir+"/vms/b.yml", "1") }},
		{"new folder", func() error { return os.Mkdir(dir+"/vms/sub", 0o700) }},
		{"link", func() error { return link("nowhere", dir+"/vms/c.yaml") }},
		{"ignored", func() error { return write(dir+"/vms/.maqetignore", "sub") }},
		{"gone", func() error { return os.RemoveAll(dir + "/vms") }},
	} {
		do(t, step.do())
		now := look().print
		if other, ok := seen[now]; ok {
			t.Errorf("%s: the fingerprint is that of %s", step.name, other)
		}
		seen[now] = step.name
	}
}

func BenchmarkLook_1000Files(b *testing.B) {
	dir := b.TempDir()
	for i := range 1000 {
		plant(b, fmt.Sprintf("%s/%02d/%03d.yaml", dir, i%20, i), "x")
	}
	for b.Loop() {
		if _, err := look(b.Context(), []string{dir}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWatcher_fileSavedUntilHint shows what the watching adds to the quiet
// time, which is 1ms here.
func BenchmarkWatcher_fileSavedUntilHint(b *testing.B) {
	dir := b.TempDir()
	do(b, write(dir+"/a.yaml", "x"))
	opt := swift(dir)
	opt.Debounce = time.Millisecond
	r := receive(b, opt)
	for b.Loop() {
		do(b, write(dir+"/a.yaml", "y"))
		r.next("an edit")
	}
}
