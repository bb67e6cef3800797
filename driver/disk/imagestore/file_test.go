package imagestore

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/manifest"
)

// pack packs content in each way that is unpacked.
func pack(t *testing.T, kind string, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch kind {
	case "gz":
		w = gzip.NewWriter(&out)
	case "xz":
		w, err = xz.NewWriter(&out)
	case "zst":
		w, err = zstd.NewWriter(&out)
	default:
		return content
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// withHoles is content that is mostly zeros, with an odd end.
func withHoles() []byte {
	content := make([]byte, 8<<20+1000)
	copy(content, noise(1000))
	copy(content[5<<20:], noise(1000))
	content[len(content)-1] = 1
	return content
}

func TestPull_packed_isUnpackedWithHoles(t *testing.T) {
	content := withHoles()
	for _, kind := range []string{"", "gz", "xz", "zst"} {
		packed := pack(t, kind, content)
		name := strings.TrimSuffix("disk.raw."+kind, ".")
		srv := serve(t, file(packed, "a"))
		for from, source := range map[string]string{"file": writeTest(t, name, packed), "URL": srv.URL + "/" + name + "?x=.gz"} {
			t.Run(kind+" "+from, func(t *testing.T) {
				s := newStore(t)
				spec := rawSpec(source, packed)
				state, err := s.Pull(t.Context(), spec, nil)
				if err != nil {
					t.Fatal(err)
				}
				wantStored(t, state, content)
				s.wantOnly(t, spec.Digest())
				if state.Stored > 1<<20 && (kind != "" || from == "file") {
					t.Errorf("it takes %d bytes, although most of it is zeros", state.Stored)
				}
			})
		}
	}
}

// TestPull_packedByTheTools_isUnpacked has what people pack by the usual tools,
// also in several streams, which those write for large files.
func TestPull_packedByTheTools_isUnpacked(t *testing.T) {
	content := noise(size)
	for _, tool := range []struct{ name, ending string }{{"gzip", "gz"}, {"xz", "xz"}, {"zstd", "zst"}} {
		t.Run(tool.name, func(t *testing.T) {
			if _, err := exec.LookPath(tool.name); err != nil {
				t.Skip(tool.name + " is not installed")
			}
			var packed []byte
			for _, part := range [][]byte{content[:size/2], content[size/2:]} {
				cmd := exec.CommandContext(t.Context(), tool.name, "-c") //nolint:gosec // a tool of the test
				cmd.Stdin = bytes.NewReader(part)
				out, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				packed = append(packed, out...)
			}
			s := newStore(t)
			state, err := s.Pull(t.Context(), rawSpec(writeTest(t, "disk.raw."+tool.ending, packed), packed), nil)
			if err != nil {
				t.Fatal(err)
			}
			wantStored(t, state, content)
		})
	}
}

func TestPull_badlyPacked_isRefusedInWords(t *testing.T) {
	content := noise(size)
	for _, kind := range []string{"gz", "xz", "zst"} {
		packed := pack(t, kind, content)
		for name, bad := range map[string][]byte{
			"cut off": packed[:len(packed)/2], "not packed at all": content, "damaged": damaged(packed), "followed by other things": append(bytes.Clone(packed), "and so on"...),
		} {
			t.Run(kind+" "+name, func(t *testing.T) {
				s := newStore(t)
				_, err := s.Pull(t.Context(), rawSpec(writeTest(t, "disk.raw."+kind, bad), bad), nil)
				if !errors.Is(err, errPacked) || !strings.Contains(err.Error(), "it cannot be unpacked as ."+kind) {
					t.Errorf("got %v", err)
				}
				s.wantNothing(t)
				if got := s.names(t); len(got) > 0 {
					t.Errorf("left: %q", got)
				}
			})
		}
		t.Run(kind+" of endless zeros", func(t *testing.T) {
			bomb := pack(t, kind, make([]byte, 4<<20))
			s := newStore(t, func(c *Config) { c.MaxSize = 1 << 20 })
			if _, err := s.Pull(t.Context(), rawSpec(writeTest(t, "disk.raw."+kind, bomb), bomb), nil); !errors.Is(err, ErrTooMuch) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func damaged(content []byte) []byte {
	content = bytes.Clone(content)
	for i := len(content) / 2; i < len(content)/2+100; i++ {
		content[i] ^= 0xff
	}
	return content
}

func TestPull_formats_areComparedAndNeverGuessed(t *testing.T) {
	good, backed := newQcow2(t), newQcow2(t, "-u", "-b", "/etc/shadow", "-F", "raw")
	tests := map[string]struct {
		content []byte
		format  manifest.DiskFormat
		words   string
	}{
		"qcow2":                 {good, manifest.FormatQcow2, ""},
		"raw that is qcow2":     {good, manifest.FormatRaw, "it should be raw and is qcow2"},
		"qcow2 that is raw":     {noise(size), manifest.FormatQcow2, "it should be qcow2 and is raw"},
		"with a backing file":   {backed, manifest.FormatQcow2, `it names the backing file "/etc/shadow"`},
		"packed without a name": {pack(t, "xz", good), manifest.FormatQcow2, "let the source end in .xz"},
	}
	for name, tt := range tests {
		srv := serve(t, file(tt.content, "a"))
		for from, source := range map[string]string{"file": writeTest(t, "disk", tt.content), "URL": srv.URL + "/disk"} {
			t.Run(name+" "+from, func(t *testing.T) {
				s := newStore(t)
				spec := manifest.ImageSpec{Source: source, SHA256: sum256(tt.content), Format: tt.format}
				state, err := s.Pull(t.Context(), spec, nil)
				if tt.words == "" {
					if err != nil {
						t.Fatal(err)
					}
					wantStored(t, state, tt.content)
					if state.Size != 1<<20 || state.Format != "qcow2" {
						t.Errorf("state %+v", state)
					}
					return
				}
				if !errors.Is(err, disk.ErrUnfit) || !strings.Contains(err.Error(), tt.words) || !strings.Contains(err.Error(), "check "+source) {
					t.Errorf("got %v", err)
				}
				s.wantNothing(t)
				// What is right of it need not be fetched again once the object is mended.
				asked := len(srv.ranges())
				if _, err := s.Pull(t.Context(), spec, nil); err == nil || len(srv.ranges()) != asked {
					t.Errorf("again: %v, asked %d times", err, len(srv.ranges()))
				}
			})
		}
	}
}

func TestLook_anotherFormatThanStored_saysSo(t *testing.T) {
	content := newQcow2(t)
	s := newStore(t)
	spec := manifest.ImageSpec{Source: writeTest(t, "disk", content), SHA256: sum256(content), Format: manifest.FormatQcow2}
	if _, err := s.Pull(t.Context(), spec, nil); err != nil {
		t.Fatal(err)
	}
	spec.Format = manifest.FormatRaw
	state := s.Look(spec)
	if state.Present || !strings.Contains(state.Err, "is qcow2, not raw") {
		t.Errorf("state %+v", state)
	}
	if _, err := s.Pull(t.Context(), spec, nil); err == nil || !strings.Contains(err.Error(), "is qcow2, not raw") {
		t.Errorf("got %v", err)
	}
}

func TestLook_storedImageChangedByHand_isNotUsed(t *testing.T) {
	content := noise(size)
	s := newStore(t)
	spec := rawSpec(writeTest(t, "disk", content), content)
	state, err := s.Pull(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(state.Path, size+512); err != nil {
		t.Fatal(err)
	}
	if got := s.Look(spec); got.Present || !strings.Contains(got.Err, "somebody has changed it") {
		t.Errorf("state %+v", got)
	}
	if err := os.Remove(state.Path); err != nil {
		t.Fatal(err)
	}
	if state, err = s.Pull(t.Context(), spec, nil); err != nil {
		t.Fatal(err)
	}
	wantStored(t, state, content)
}

// TestPull_fileWithoutDigest_isTakenOnceAndAgainOnRequest has a file that is built
// anew: disks are not to change their image behind anybody's back.
func TestPull_fileWithoutDigest_isTakenOnceAndAgainOnRequest(t *testing.T) {
	old, content := noise(size), noise(size+512)
	s := newStore(t)
	path := writeTest(t, "disk.raw", old)
	spec := manifest.ImageSpec{Source: path, Format: manifest.FormatRaw}
	if before := s.Look(spec); before.Present || before.Digest != "" || before.Changed {
		t.Errorf("before: %+v", before)
	}
	state, err := s.Pull(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantStored(t, state, old)
	if state.Digest != "sha256:"+sum256(old) || state.Changed {
		t.Errorf("state %+v", state)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	changed := s.Look(spec)
	wantStored(t, changed, old)
	if !changed.Changed || changed.Digest != state.Digest {
		t.Errorf("after the change: %+v", changed)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if away := s.Look(spec); !away.Present || away.Changed {
		t.Errorf("while the file is away: %+v", away)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	if state, err = s.Pull(t.Context(), spec, nil); err != nil {
		t.Fatal(err)
	}
	wantStored(t, state, content)
	if state.Digest != "sha256:"+sum256(content) || state.Changed {
		t.Errorf("taken anew: %+v", state)
	}
	// The old one is there still, for disks that were made of it.
	wantStored(t, s.Look(rawSpec(path, old)), old)
}

func TestPull_files_thatCannotBeTaken_areRefusedInWords(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	content := noise(size)
	good := writeTest(t, "disk", content)
	for name, tt := range map[string]struct {
		spec  manifest.ImageSpec
		words string
	}{
		"missing":      {rawSpec(filepath.Join(dir, "missing"), content), "no such file or directory"},
		"a pipe":       {rawSpec(pipe, content), "it is no regular file"},
		"a folder":     {rawSpec(dir, content), "it is no regular file"},
		"a device":     {rawSpec("/dev/null", content), "it is no regular file"},
		"wrong digest": {rawSpec(good, []byte("other")), "the digest is wrong: it has sha256:" + sum256(content)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			_, err := s.Pull(t.Context(), tt.spec, nil)
			if err == nil || !strings.Contains(err.Error(), tt.words) || !strings.Contains(err.Error(), tt.spec.Source) {
				t.Errorf("got %v", err)
			}
			if got := s.names(t); len(got) > 0 {
				t.Errorf("left: %q", got)
			}
		})
	}
}

// TestPull_fileWrittenToMeanwhile_isRefused writes to the file while it is read.
func TestPull_fileWrittenToMeanwhile_isRefused(t *testing.T) {
	path := writeTest(t, "disk", noise(size))
	s := newStore(t)
	var progress watched
	again := time.Now().Add(time.Hour)
	s.free = func(string) (int64, error) { return 1 << 40, nil }
	spec := manifest.ImageSpec{Source: path, Format: manifest.FormatRaw}
	_, err := s.Pull(t.Context(), spec, func(p driver.Transfer) {
		progress.told(p)
		// What is told first is told before anything was read.
		if err := os.Chtimes(path, again, again); err != nil {
			t.Error(err)
		}
	})
	if !errors.Is(err, ErrChanged) {
		t.Errorf("got %v", err)
	}
	s.wantNothing(t)
}
