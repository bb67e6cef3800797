package state_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/maqet/maqet/state"
)

// settle views until what was read is kept, which needs a file that was left alone
// for a moment.
func settle(t *testing.T, s *state.Store) {
	t.Helper()
	ctx := within(t, 30*time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !s.Recalls() {
		machines(t, s)
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("what was read is never kept")
		}
	}
}

func TestView_fileLeftAlone_isNotReadAgain(t *testing.T) {
	f := newFixture(t)
	f.put(t, "web")
	settle(t, f.Store)
	all, warnings := machines(t, f.Store)
	if len(all) != 1 || all[0].Object.Metadata.Name != "web" || len(warnings) != 0 {
		t.Errorf("machines %v, warnings %v; want web", names(all), warnings)
	}
	// What a caller does to its copy is nobody else's.
	all[0].Owner = "somebody else"
	if again, _ := machines(t, f.Store); again[0].Owner == "somebody else" {
		t.Error("a record was changed through what a View returned")
	}
}

func TestView_otherWrites_areSeenAtOnce(t *testing.T) {
	f := newFixture(t)
	f.put(t, "web")
	other := f.another(t)
	settle(t, f.Store)
	for _, writer := range []*state.Store{other, f.Store} {
		mustUpdate(t, writer, func(tx *state.Tx) error { return tx.PutMachine(machine("db")) })
		if all, _ := machines(t, f.Store); len(all) != 2 {
			t.Errorf("machines %v, want the new one, too", names(all))
		}
		mustUpdate(t, writer, func(tx *state.Tx) error { return tx.DeleteMachine("db") })
		if all, _ := machines(t, f.Store); len(all) != 1 {
			t.Errorf("machines %v, want web alone", names(all))
		}
		settle(t, f.Store)
	}
}

func TestView_fileReplacedOrGone_isNoticed(t *testing.T) {
	f := newFixture(t)
	f.put(t, "web")
	settle(t, f.Store)
	// Another database with times and size of this one, in its place.
	info, err := os.Stat(f.path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	g := fixtureIn(t, dir)
	g.put(t, "api")
	if err := os.Chtimes(g.path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(g.path, f.path); err != nil {
		t.Fatal(err)
	}
	if all, _ := machines(t, f.Store); len(all) != 1 || all[0].Object.Metadata.Name != "api" {
		t.Errorf("machines %v, want those of the new file", names(all))
	}
	settle(t, f.Store)
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	if all, _ := machines(t, f.Store); len(all) != 0 {
		t.Errorf("machines %v of a file in %s that is gone", names(all), filepath.Dir(f.path))
	}
}

func TestView_damagedInPlace_isNoticed(t *testing.T) {
	f := newFixture(t)
	f.put(t, "web", "db")
	settle(t, f.Store)
	data := readFile(t, f.path)
	if !state.Corrupt(data, "web") {
		t.Fatal("nothing to damage")
	}
	file, err := os.OpenFile(f.path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if all, warnings := machines(t, f.Store); len(all) != 1 || len(warnings) == 0 {
		t.Errorf("machines %v, warnings %v; want db alone, and a warning", names(all), warnings)
	}
	if f.Recalls() {
		t.Error("a damaged file is kept as if it were sound")
	}
}
