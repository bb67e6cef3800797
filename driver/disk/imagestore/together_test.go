package imagestore

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
)

// The flags that make this test binary a process that fetches an image.
var (
	pullSource = flag.String("pull-source", "", "fetch this image and exit")
	pullDigest = flag.String("pull-sha256", "", "the digest of the image to fetch")
	pullIn     = flag.String("pull-in", "", "the folder of the state and run dirs")
)

// TestMain lets the test binary stand in for a maqet that can be killed.
func TestMain(m *testing.M) {
	flag.Parse()
	if *pullSource == "" {
		os.Exit(m.Run())
	}
	s := New(Config{
		Layout: layout.Layout{State: filepath.Join(*pullIn, "state"), Run: filepath.Join(*pullIn, "run")},
		Timing: patient(), Locks: filelock.New(), Images: disk.New(disk.Config{Timing: patient()}), Who: "the other",
	})
	spec := manifest.ImageSpec{Source: *pullSource, SHA256: *pullDigest, Format: manifest.FormatRaw}
	if _, err := s.Pull(context.Background(), spec, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// process is another process that fetches the image, which the test may kill.
func (s *Store) process(t *testing.T, spec manifest.ImageSpec) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-pull-source", spec.Source, "-pull-sha256", spec.SHA256, "-pull-in", filepath.Dir(s.cfg.Layout.State)) //nolint:gosec // G204: this test binary
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// gate serves half of the content, and the rest once it is opened.
func gate(content []byte) (http.HandlerFunc, func()) {
	open := make(chan struct{})
	var once sync.Once
	answer := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content[:len(content)/2])
		flush(w)
		select {
		case <-open:
			_, _ = w.Write(content[len(content)/2:])
		case <-r.Context().Done():
		}
	}
	return answer, func() { once.Do(func() { close(open) }) }
}

// TestPull_many_fetchOnce has several callers in several processes want one image.
func TestPull_many_fetchOnce(t *testing.T) {
	content := noise(size)
	answer, open := gate(content)
	defer open()
	srv := serve(t, answer)
	s := newStore(t)
	spec := rawSpec(srv.URL+"/disk.raw", content)
	others := []*exec.Cmd{s.process(t, spec), s.process(t, spec)}
	beside := s.beside()
	var progress watched
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			store := s
			if i%2 == 0 {
				store = beside
			}
			state, err := store.Pull(t.Context(), spec, progress.told)
			if err != nil {
				t.Error(err)
				return
			}
			wantStored(t, state, content)
		})
	}
	eventually(t, "half of it is there", func() bool {
		info, err := os.Stat(s.cfg.Layout.ImagePart(layout.ImageKey(spec.Digest())))
		return err == nil && info.Size() == size/2
	})
	eventually(t, "whoever waits is told of it", func() bool { return progress.last().What != "" })
	eventually(t, "others see who fetches it", func() bool {
		pull := s.beside().Look(spec).Pull
		return pull != nil && pull.PID != 0 && pull.Who != ""
	})
	open()
	all.Wait()
	for _, cmd := range others {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if got := len(srv.ranges()); got != 1 {
		t.Errorf("fetched %d times", got)
	}
	s.wantOnly(t, spec.Digest())
}

// TestPull_holderHangs_waiterGivesUpAndNamesIt stops a process that fetches.
func TestPull_holderHangs_waiterGivesUpAndNamesIt(t *testing.T) {
	content := noise(size)
	answer, open := gate(content)
	defer open()
	srv := serve(t, answer)
	s := newStore(t)
	spec := rawSpec(srv.URL+"/disk.raw", content)
	other := s.process(t, spec)
	eventually(t, "the other fetches it", func() bool { return s.Look(spec).Pull != nil })
	hasty := s.beside(func(c *Config) { c.Timing.Stall, c.Timing.Image = 200*time.Millisecond, 200*time.Millisecond })
	_, err := hasty.Pull(t.Context(), spec, nil)
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", other.Process.Pid)) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Pull(ctx, spec, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	open()
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
	wantStored(t, s.Look(spec), content)
}

// TestPull_takesTooLongInAll_endsAndKeepsThePart bounds a server that never stalls
// and never ends.
func TestPull_takesTooLongInAll_endsAndKeepsThePart(t *testing.T) {
	content := noise(size)
	answer, open := gate(content)
	defer open()
	srv := serve(t, answer)
	s := newStore(t, func(c *Config) { c.Timing.Pull = 300 * time.Millisecond })
	_, err := s.Pull(t.Context(), rawSpec(srv.URL+"/disk.raw", content), nil)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `it took longer than 300ms (timeout "pull")`) {
		t.Errorf("got %v", err)
	}
	s.wantNothing(t)
}
