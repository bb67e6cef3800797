package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// syncing is a host's checkout of a repository that others push to.
type syncing struct {
	*testing.T
	// upstream is the repository, author somebody's clone, checkout the host's.
	upstream, author, checkout string
}

func newSyncing(t *testing.T) *syncing {
	t.Helper()
	dir := t.TempDir()
	s := &syncing{T: t, upstream: filepath.Join(dir, "up.git"), author: filepath.Join(dir, "author"), checkout: filepath.Join(dir, "repo")}
	s.must("", "init", "-q", "--bare", "-b", "main", s.upstream)
	s.must("", "clone", "-q", s.upstream, s.author)
	s.must(s.author, "switch", "-q", "-c", "main")
	s.push("one")
	s.must("", "clone", "-q", s.upstream, s.checkout)
	return s
}

// git runs git as nobody in particular: no settings of the user or the system.
func (s *syncing) git(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b", "GIT_TERMINAL_PROMPT=0")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *syncing) must(dir string, args ...string) string {
	s.Helper()
	out, err := s.git(dir, args...)
	if err != nil {
		s.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// push publishes another content of the one file, over whatever was there.
func (s *syncing) push(content string, amend ...string) {
	s.Helper()
	if err := os.WriteFile(filepath.Join(s.author, "web.yaml"), []byte(content), 0o600); err != nil {
		s.Fatal(err)
	}
	s.must(s.author, "add", "web.yaml")
	s.must(s.author, append([]string{"commit", "-q", "-m", content}, amend...)...)
	s.must(s.author, "push", "-q", "--force", "origin", "main")
}

// pull runs what maqet-sync.service runs, in this checkout.
func (s *syncing) pull() (string, error) {
	s.Helper()
	unit, err := os.ReadFile(filepath.Join(repository(s.T), "examples/gitops/systemd/maqet-sync.service"))
	if err != nil {
		s.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^ExecStart=git (.*)$`).FindSubmatch(unit)
	if line == nil {
		s.Fatal("maqet-sync.service runs no git")
	}
	return s.git("", strings.Fields(strings.ReplaceAll(string(line[1]), "/etc/maqet/repo", s.checkout))...)
}

// shows insists on what a watch of the checkout would read.
func (s *syncing) shows(content string) {
	s.Helper()
	got, err := os.ReadFile(filepath.Join(s.checkout, "web.yaml"))
	if err != nil || string(got) != content {
		s.Errorf("the checkout shows %q, %v; want %q", got, err, content)
	}
}

func TestSync_newCommit_isPulled(t *testing.T) {
	t.Parallel()
	s := newSyncing(t)
	s.push("two")
	if out, err := s.pull(); err != nil {
		t.Fatalf("pull: %v\n%s", err, out)
	}
	s.shows("two")
}

func TestSync_pullThatCannotGoForward_failsAndChangesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(s *syncing)
		shows string
	}{
		"history rewritten": {func(s *syncing) { s.push("other", "--amend") }, "one"},
		"server gone": {func(s *syncing) {
			s.push("two")
			if err := os.Rename(s.upstream, s.upstream+".away"); err != nil {
				s.Fatal(err)
			}
		}, "one"},
		"file edited on the host": {func(s *syncing) {
			s.push("two")
			if err := os.WriteFile(filepath.Join(s.checkout, "web.yaml"), []byte("mine"), 0o600); err != nil {
				s.Fatal(err)
			}
		}, "mine"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSyncing(t)
			c.spoil(s)
			if out, err := s.pull(); err == nil {
				t.Errorf("the pull succeeded:\n%s", out)
			}
			s.shows(c.shows)
			status := strings.TrimSpace(s.must(s.checkout, "status", "--porcelain"))
			if dirty := c.shows == "mine"; dirty != (status == "M web.yaml") || !dirty && status != "" {
				t.Errorf("the checkout was left in between: %q", status)
			}
		})
	}
}
