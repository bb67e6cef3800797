package layout_test

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/internal/layout"
)

func TestDefault_environments_chooseFolders(t *testing.T) {
	for name, tc := range map[string]struct {
		env  map[string]string
		root bool
		want layout.Layout
	}{
		"root": {
			root: true,
			want: layout.Layout{State: "/var/lib/maqet", Run: "/run/maqet"},
		},
		"root ignores XDG": {
			root: true,
			env:  map[string]string{"XDG_STATE_HOME": "/x", "XDG_RUNTIME_DIR": "/y"},
			want: layout.Layout{State: "/var/lib/maqet", Run: "/run/maqet"},
		},
		"root with a private state dir": {
			root: true,
			env:  map[string]string{"MAQET_STATE_DIR": "/srv/m"},
			want: layout.Layout{State: "/srv/m", Run: "/srv/m/run"},
		},
		"user without XDG": {
			want: layout.Layout{State: "/home/u/.local/state/maqet", Run: "/home/u/.local/state/maqet/run"},
		},
		"user with XDG": {
			env:  map[string]string{"XDG_STATE_HOME": "/x", "XDG_RUNTIME_DIR": "/run/user/7"},
			want: layout.Layout{State: "/x/maqet", Run: "/run/user/7/maqet"},
		},
		"both by environment": {
			env:  map[string]string{"XDG_STATE_HOME": "/x", "MAQET_STATE_DIR": "/s", "MAQET_RUN_DIR": "/r"},
			want: layout.Layout{State: "/s", Run: "/r"},
		},
	} {
		getenv := func(key string) string { return tc.env[key] }
		if diff := cmp.Diff(tc.want, layout.Default(getenv, "/home/u", tc.root)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestWith_flags_override(t *testing.T) {
	base := layout.Layout{State: "/s", Run: "/r"}
	for name, tc := range map[string]struct {
		state, run string
		want       layout.Layout
	}{
		"nothing":        {"", "", base},
		"same state":     {"/s", "", base},
		"other state":    {"/t", "", layout.Layout{State: "/t", Run: "/t/run"}},
		"other run":      {"", "/q", layout.Layout{State: "/s", Run: "/q"}},
		"both different": {"/t", "/q", layout.Layout{State: "/t", Run: "/q"}},
	} {
		if diff := cmp.Diff(tc.want, base.With(tc.state, tc.run)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestLayout_paths_areDistinctAndInside calls every method, so that a new path
// is checked without being named here.
func TestLayout_paths_areDistinctAndInside(t *testing.T) {
	l := layout.Layout{State: "/state", Run: "/run/m"}
	seen := map[string]string{}
	v := reflect.ValueOf(l)
	for i := range v.NumMethod() {
		name, method := v.Type().Method(i).Name, v.Method(i)
		if name == "With" {
			continue
		}
		args := make([]reflect.Value, method.Type().NumIn())
		for j := range args {
			args[j] = reflect.ValueOf([]string{"web", "root"}[j])
		}
		path := method.Call(args)[0].String()
		if path != filepath.Clean(path) || !strings.HasPrefix(path, l.State+"/") && !strings.HasPrefix(path, l.Run+"/") {
			t.Errorf("%s is %q, outside of the folders", name, path)
		}
		if other, taken := seen[path]; taken {
			t.Errorf("%s and %s are both %q", name, other, path)
		}
		seen[path] = name
	}
	if len(seen) < 20 {
		t.Errorf("only %d paths were seen", len(seen))
	}
}

func TestLayout_locks_lieTogetherApartFromMachines(t *testing.T) {
	l := layout.Layout{State: "/state", Run: "/run/m"}
	for _, lock := range []string{
		l.MachineLock("db"), l.CLILock("db"), l.QMPLock("db"), l.DatabaseLock(), l.EventsLock(), l.ProbeLock(),
	} {
		if filepath.Dir(lock) != l.LockDir() {
			t.Errorf("%s is not in %s", lock, l.LockDir())
		}
	}
	if l.MachineLock("db") == l.DatabaseLock() {
		t.Error("a machine named db has the database's lock")
	}
}
