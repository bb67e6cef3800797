package imagestore

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

// patient is a table whose waits no loaded machine runs into by itself, but for the
// pauses between tries.
func patient() timing.Table {
	t := timing.Default()
	t.Stall, t.Lock, t.Backoff = time.Minute, time.Minute, time.Millisecond
	return t
}

// newStore is a store in folders of its own, over the real qemu-img.
func newStore(t *testing.T, change ...func(*Config)) *Store {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("qemu-img is not installed (Debian package qemu-utils)")
	}
	dir := t.TempDir()
	cfg := Config{
		Layout: layout.Layout{State: filepath.Join(dir, "state"), Run: filepath.Join(dir, "run")},
		Timing: patient(), Locks: filelock.New(), Images: disk.New(disk.Config{Timing: patient()}), Who: "test",
	}
	for _, f := range change {
		f(&cfg)
	}
	return New(cfg)
}

// beside is another store of the same folders, as another process has it.
func (s *Store) beside(change ...func(*Config)) *Store {
	cfg := s.cfg
	cfg.Locks = filelock.New()
	for _, f := range change {
		f(&cfg)
	}
	return New(cfg)
}

// noise is content that does not pack, and that no format is known by.
func noise(size int) []byte {
	// No size begins like another.
	var seed [32]byte
	copy(seed[:], strconv.Itoa(size))
	random := rand.NewChaCha8(seed)
	content := make([]byte, size)
	_, _ = random.Read(content) // it never fails
	copy(content, "no magic")
	return content
}

func sum256(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func sum512(content []byte) string {
	sum := sha512.Sum512(content)
	return hex.EncodeToString(sum[:])
}

// rawSpec is an image of that content at that source.
func rawSpec(source string, content []byte) manifest.ImageSpec {
	return manifest.ImageSpec{Source: source, SHA256: sum256(content), Format: manifest.FormatRaw}
}

// server serves one file, and remembers what it was asked for.
type server struct {
	*httptest.Server
	mu sync.Mutex
	// asked are the Range headers of the requests, and "" for none.
	asked []string
}

// serve answers by a handler. The connections it left hanging end with the test.
func serve(t *testing.T, answer http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.Header.Get("Range"))
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) ranges() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// file serves content with ranges and a strong tag, as good servers do.
func file(content []byte, tag string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"`+tag+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
}

// cut serves at most that many bytes of each answer, and then drops the connection.
func cut(content []byte, tag string, most int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		file(content, tag)(&cutting{ResponseWriter: w, left: most}, r)
	}
}

// cutting is an answer whose connection breaks.
type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Write(b []byte) (int, error) {
	if len(b) < c.left {
		c.left -= len(b)
		return c.ResponseWriter.Write(b)
	}
	if _, err := c.ResponseWriter.Write(b[:c.left]); err != nil {
		return 0, err
	}
	flush(c.ResponseWriter)
	panic(http.ErrAbortHandler)
}

// wantStored fails unless the image is there with just that content.
func wantStored(t *testing.T, state driver.ImageState, content []byte) {
	t.Helper()
	if !state.Present {
		t.Fatalf("not there: %+v", state)
	}
	got, err := os.ReadFile(state.Path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, content) {
		t.Errorf("%s holds %d bytes that differ from the %d published", state.Path, len(got), len(content))
	}
	info, err := os.Stat(state.Path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o400 {
		t.Errorf("%s has mode %v", state.Path, info.Mode())
	}
}

// names are the files in the folder of images.
func (s *Store) names(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(s.cfg.Layout.ImageDir())
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// wantNothing fails when anything lies under a final name, or a temporary file is left.
func (s *Store) wantNothing(t *testing.T) {
	t.Helper()
	for _, name := range s.names(t) {
		if !strings.HasPrefix(name, ".part-") {
			t.Errorf("%s was left", name)
		}
	}
}

// wantOnly fails unless just the raw image of that digest is there.
func (s *Store) wantOnly(t *testing.T, digest string) {
	t.Helper()
	want := []string{layout.ImageKey(digest) + ".json", layout.ImageKey(digest) + ".raw"}
	if got := s.names(t); !slices.Equal(got, want) {
		t.Errorf("the folder holds %q, want %q", got, want)
	}
	if left, err := filepath.Glob(filepath.Join(s.cfg.Layout.Run, ".images", "*")); err != nil || len(left) > 0 {
		t.Errorf("left in the run dir: %q, %v", left, err)
	}
}

// qemuImg runs qemu-img.
func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "qemu-img", args...).CombinedOutput(); err != nil { //nolint:gosec // G204: made up by the tests
		t.Fatalf("qemu-img %q: %v\n%s", args, err, out)
	}
}

// flush sends what was written of an answer so far.
func flush(w http.ResponseWriter) {
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}

// say answers with just these bytes, whatever HTTP wants, and hangs up.
func say(w http.ResponseWriter, text string) {
	h, ok := w.(http.Hijacker)
	if !ok {
		return
	}
	conn, _, err := h.Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(conn, text) // who hangs up first is no matter
	_ = conn.Close()
}

// newQcow2 is the content of a small qcow2.
func newQcow2(t *testing.T, options ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.qcow2")
	qemuImg(t, append(append([]string{"create", "-q", "-f", "qcow2"}, options...), path, "1M")...)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// write puts content into a new file.
func writeTest(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// watch gathers what is told of a fetch.
type watched struct {
	mu  sync.Mutex
	all []driver.Transfer
}

func (w *watched) told(t driver.Transfer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, t)
}

func (w *watched) last() driver.Transfer {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.all) == 0 {
		return driver.Transfer{}
	}
	return w.all[len(w.all)-1]
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("%+v", w.all)
}

// eventually waits until something is so, and fails the test when it never is.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !so(); {
		if time.Now().After(end) {
			t.Errorf("it never came about that %s", what)
			return
		}
		<-tick.C
	}
}

// holdOpen is a process that has a file open until the test ends.
func holdOpen(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // the process has its own
	cmd := exec.CommandContext(t.Context(), "cat")
	cmd.ExtraFiles = []*os.File{f}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // upon which it ends
		_ = cmd.Wait()
	})
	// Its command line can be read a moment after it was started.
	for {
		words, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		if len(words) > 0 {
			return cmd
		}
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
	}
}
