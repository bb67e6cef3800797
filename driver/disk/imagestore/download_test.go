package imagestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
)

const size = 300 << 10

func TestPull_goodServer_storesTheImageByItsDigest(t *testing.T) {
	content := noise(size)
	srv := serve(t, file(content, "a"))
	for name, spec := range map[string]manifest.ImageSpec{
		"sha256": {Source: srv.URL + "/disk.raw?key=secret", SHA256: sum256(content), Format: manifest.FormatRaw},
		"sha512": {Source: srv.URL + "/disk.raw", SHA512: sum512(content), Format: manifest.FormatRaw},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			if before := s.Look(spec); before.Present || before.Digest != spec.Digest() {
				t.Errorf("before: %+v", before)
			}
			var progress watched
			state, err := s.Pull(t.Context(), spec, progress.told)
			if err != nil {
				t.Fatal(err)
			}
			wantStored(t, state, content)
			if diff := cmp.Diff(state, s.Look(spec)); diff != "" || state.Size != size {
				t.Errorf("looked at again (-pull +look):\n%s", diff)
			}
			s.wantOnly(t, spec.Digest())
			asked := len(srv.ranges())
			if _, err := s.Pull(t.Context(), spec, nil); err != nil || len(srv.ranges()) != asked {
				t.Errorf("fetched again: %v", err)
			}
			if len(progress.all) == 0 || progress.all[0].Total != size {
				t.Errorf("progress: %s", &progress)
			}
			record, err := os.ReadFile(s.cfg.Layout.ImageRecord(layout.ImageKey(spec.Digest())))
			if err != nil || strings.Contains(string(record), "secret") {
				t.Errorf("the record is %s, %v", record, err)
			}
		})
	}
}

func TestPull_wrongDigest_keepsNothing(t *testing.T) {
	content := noise(size)
	srv := serve(t, file(content, "a"))
	s := newStore(t)
	spec := rawSpec(srv.URL+"/disk.raw?key=secret", []byte("something else"))
	state, err := s.Pull(t.Context(), spec, nil)
	if !errors.Is(err, ErrDigest) || !strings.Contains(err.Error(), sum256(content)) || !strings.Contains(err.Error(), spec.SHA256) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
	if state.Present || state.Failed == "" {
		t.Errorf("state %+v", state)
	}
	s.wantNothing(t)
	info, err := os.Stat(s.cfg.Layout.ImagePart(layout.ImageKey(spec.Digest())))
	if err != nil || info.Size() != 0 {
		t.Errorf("the part: %v, %v", info, err)
	}
	if got := len(srv.ranges()); got != 1 {
		t.Errorf("asked %d times", got)
	}
}

// TestPull_cutOff_goesOnWhereItEnded has each answer end early, within one pull
// and from one pull to the next.
func TestPull_cutOff_goesOnWhereItEnded(t *testing.T) {
	content := noise(size)
	tests := map[string]struct {
		answer func(n int32) http.HandlerFunc
		pulls  int
		ranges []string
	}{
		"again and again": {
			func(int32) http.HandlerFunc { return cut(content, "a", 100<<10) }, 1,
			[]string{"", "bytes=102400-", "bytes=204800-"},
		},
		"another version meanwhile": {
			func(n int32) http.HandlerFunc {
				if n == 1 {
					return cut(noise(size+1), "old", 100<<10)
				}
				return file(content, "new")
			}, 1,
			[]string{"", "bytes=102400-"},
		},
		"no ranges": {
			func(n int32) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					r.Header.Del("Range")
					if n == 1 {
						cut(content, "a", 100<<10)(w, r)
					}
					file(content, "a")(w, r)
				}
			}, 1,
			[]string{"", "bytes=102400-"},
		},
		"another range than asked for": {
			func(n int32) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					if n == 1 {
						cut(content, "a", 100<<10)(w, r)
					}
					if r.Header.Get("Range") != "" {
						r.Header.Set("Range", "bytes=5-")
					}
					file(content, "a")(w, r)
				}
			}, 1,
			[]string{"", "bytes=102400-", ""},
		},
		"less than before": {
			func(n int32) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					switch n {
					case 1:
						cut(noise(size+1), "a", 200<<10)(w, r)
					case 2:
						file(content[:100<<10], "a")(w, r)
					default:
						file(content, "b")(w, r)
					}
				}
			}, 1,
			[]string{"", "bytes=204800-", ""},
		},
		"errors that pass": {
			func(n int32) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					switch n {
					case 1:
						w.WriteHeader(http.StatusServiceUnavailable)
					case 2:
						w.WriteHeader(http.StatusTooManyRequests)
					case 3:
						panic(http.ErrAbortHandler)
					default:
						file(content, "a")(w, r)
					}
				}
			}, 1,
			[]string{"", "", "", ""},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			srv := serve(t, func(w http.ResponseWriter, r *http.Request) { tt.answer(n.Add(1))(w, r) })
			s := newStore(t)
			spec := rawSpec(srv.URL+"/disk.raw", content)
			state, err := s.Pull(t.Context(), spec, nil)
			if err != nil {
				t.Fatal(err)
			}
			wantStored(t, state, content)
			s.wantOnly(t, spec.Digest())
			if diff := cmp.Diff(tt.ranges, srv.ranges()); diff != "" {
				t.Errorf("ranges asked for (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPull_cancelled_keepsThePart ends a pull in the middle, as Ctrl-C does.
func TestPull_cancelled_keepsThePart(t *testing.T) {
	content := noise(size)
	const sent = 150 << 10
	var n atomic.Int32
	end := make(chan struct{})
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) > 1 {
			file(content, "a")(w, r)
			return
		}
		w.Header().Set("ETag", `"a"`)
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content[:sent])
		flush(w)
		<-end
	})
	defer close(end)
	s := newStore(t)
	spec := rawSpec(srv.URL+"/disk.raw", content)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer cancel()
		eventually(t, "all that was sent is written", func() bool {
			info, err := os.Stat(s.cfg.Layout.ImagePart(layout.ImageKey(spec.Digest())))
			return err == nil && info.Size() == sent
		})
	}()
	_, err := s.Pull(ctx, spec, nil)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if state := s.Look(spec); state.Present || state.Pull != nil || state.Failed != "" {
		t.Errorf("after the cancel: %+v", state)
	}
	s.wantNothing(t)
	state, err := s.Pull(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantStored(t, state, content)
	if diff := cmp.Diff([]string{"", fmt.Sprintf("bytes=%d-", sent)}, srv.ranges()); diff != "" {
		t.Errorf("ranges asked for (-want +got):\n%s", diff)
	}
}

// TestPull_damagedPart_startsOnceMoreFromNothing has a part whose content is not
// what was fetched, as after a loss of power.
func TestPull_damagedPart_startsOnceMoreFromNothing(t *testing.T) {
	content := noise(size)
	srv := serve(t, file(content, "a"))
	for name, part := range map[string][]byte{
		"zeros": make([]byte, 100<<10), "too long": make([]byte, size+1000), "whole but wrong": make([]byte, size),
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			spec := rawSpec(srv.URL+"/disk.raw", content)
			if err := makeDir(s.cfg.Layout.ImageDir()); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.cfg.Layout.ImagePart(layout.ImageKey(spec.Digest())), part, 0o600); err != nil {
				t.Fatal(err)
			}
			state, err := s.Pull(t.Context(), spec, nil)
			if err != nil {
				t.Fatal(err)
			}
			wantStored(t, state, content)
			s.wantOnly(t, spec.Digest())
		})
	}
}

// TestPull_partOfAnotherMirror_goesOnWithIt has the URL changed: bytes of one
// digest are the same wherever they come from.
func TestPull_partOfAnotherMirror_goesOnWithIt(t *testing.T) {
	content := noise(size)
	first := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		cut(content, "a", 100<<10)(w, r)
	})
	second := serve(t, file(content, "b"))
	s := newStore(t)
	if _, err := s.Pull(t.Context(), rawSpec(first.URL+"/disk.raw", content), nil); !errors.Is(err, ErrStatus) {
		t.Fatalf("got %v", err)
	}
	state, err := s.Pull(t.Context(), rawSpec(second.URL+"/disk.raw", content), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantStored(t, state, content)
	if diff := cmp.Diff([]string{"bytes=102400-"}, second.ranges()); diff != "" {
		t.Errorf("ranges asked for (-want +got):\n%s", diff)
	}
}

func TestPull_badServers_areLeftInWords(t *testing.T) {
	content := noise(size)
	endless := func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(content); err != nil {
				return
			}
		}
	}
	tests := map[string]struct {
		answer http.HandlerFunc
		change func(*Config)
		is     error
		words  string
		asked  int
	}{
		"not there":          {http.NotFound, nil, ErrStatus, "404 Not Found", 1},
		"forbidden":          {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, nil, ErrStatus, "403 Forbidden", 1},
		"broken":             {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, nil, ErrStatus, "502 Bad Gateway", maxTries},
		"hangs up":           {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, nil, io.EOF, "EOF", maxTries},
		"announces too much": {file(content, "a"), func(c *Config) { c.MaxSize = 100 << 10 }, ErrTooMuch, "more than 100Ki", 1},
		"never ends":         {endless, func(c *Config) { c.MaxSize = 1 << 20 }, ErrTooMuch, "more than 1Mi", 1},
		"sends more than it announced": {func(w http.ResponseWriter, _ *http.Request) {
			say(w, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n%s", content))
		}, nil, ErrDigest, "the digest is wrong", 1},
		"no HTTP": {func(w http.ResponseWriter, _ *http.Request) {
			say(w, "220 mail.example.org ESMTP\r\n")
		}, nil, nil, "malformed HTTP", maxTries},
		"a redirect in circles": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/again", http.StatusFound)
		}, nil, errRedirect, "there were 10 already", maxRedirects + 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			srv := serve(t, tt.answer)
			s := newStore(t)
			if tt.change != nil {
				tt.change(&s.cfg)
			}
			spec := rawSpec(srv.URL+"/disk.raw?key=secret", content)
			_, err := s.Pull(t.Context(), spec, nil)
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.words) || !strings.Contains(err.Error(), Show(spec)) {
				t.Fatalf("got %v", err)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells the key: %v", err)
			}
			if state := s.Look(spec); state.Present || state.Failed != err.Error() {
				t.Errorf("state %+v", state)
			}
			s.wantNothing(t)
			if got := len(srv.ranges()); got != tt.asked {
				t.Errorf("asked %d times, want %d", got, tt.asked)
			}
		})
	}
}

// TestPull_stalls_isLeftInWords has servers that send nothing, or one byte at a
// time; the time allowed is short, since it has to pass.
func TestPull_stalls_isLeftInWords(t *testing.T) {
	content := noise(size)
	end := make(chan struct{})
	hang := func(send func(w http.ResponseWriter)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			send(w)
			flush(w)
			select {
			case <-end:
			case <-r.Context().Done():
			}
		}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"before the answer": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-end:
			case <-r.Context().Done():
			}
		},
		"before the first byte": hang(func(w http.ResponseWriter) { w.Header().Set("Content-Length", fmt.Sprint(size)) }),
		"in the middle":         hang(func(w http.ResponseWriter) { _, _ = w.Write(content[:100<<10]) }),
		"but for a few bytes": func(w http.ResponseWriter, r *http.Request) {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-end:
					return
				case <-r.Context().Done():
					return
				case <-tick.C:
					_, _ = w.Write(content[i%size : i%size+1])
					flush(w)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := serve(t, answer)
			s := newStore(t, func(c *Config) { c.Timing.Stall = 300 * time.Millisecond })
			spec := rawSpec(srv.URL+"/disk.raw", content)
			_, err := s.Pull(t.Context(), spec, nil)
			if !errors.Is(err, ErrStalled) || !strings.Contains(err.Error(), `less than 1Ki came in 300ms (timeout "stall")`) || !strings.Contains(err.Error(), "--timeouts stall=") {
				t.Errorf("got %v", err)
			}
			s.wantNothing(t)
		})
	}
	close(end)
}

func TestPull_noRoom_isRefusedBeforeAndMeanwhile(t *testing.T) {
	content := noise(size)
	srv := serve(t, file(content, "a"))
	s := newStore(t)
	s.free = func(string) (int64, error) { return reserve + size - 1, nil }
	spec := rawSpec(srv.URL+"/disk.raw", content)
	if _, err := s.Pull(t.Context(), spec, nil); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "maqet image prune") {
		t.Errorf("got %v", err)
	}
	s.wantNothing(t)
	endless := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(content); err != nil {
				return
			}
		}
	})
	s.free = func(string) (int64, error) { return reserve - 1, nil }
	if _, err := s.Pull(t.Context(), rawSpec(endless.URL+"/disk.raw", content), nil); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}

func TestPull_redirects_areFollowedButNotOutOfTLS(t *testing.T) {
	content := noise(size)
	plain := serve(t, file(content, "a"))
	private := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/out.raw" {
			http.Redirect(w, r, plain.URL+"/disk.raw", http.StatusFound)
			return
		}
		if r.URL.Path == "/within.raw" {
			http.Redirect(w, r, "/disk.raw", http.StatusFound)
			return
		}
		file(content, "a")(w, r)
	}))
	t.Cleanup(private.Close)
	s := newStore(t, func(c *Config) { c.Transport = private.Client().Transport })
	if _, err := s.Pull(t.Context(), rawSpec(private.URL+"/out.raw", content), nil); !errors.Is(err, errRedirect) || !strings.Contains(err.Error(), "from https to http") {
		t.Errorf("got %v", err)
	}
	if len(plain.ranges()) > 0 {
		t.Error("it was followed")
	}
	state, err := s.Pull(t.Context(), rawSpec(private.URL+"/within.raw", content), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantStored(t, state, content)
	// The system does not know who signed the server's certificate.
	if _, err := newStore(t).Pull(t.Context(), rawSpec(private.URL+"/disk.raw", content), nil); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}

func TestContentRange_texts(t *testing.T) {
	type answer struct {
		From, Total int64
		OK          bool
	}
	for text, want := range map[string]answer{
		"bytes 0-9/10": {0, 10, true}, "bytes 5-9/10": {5, 10, true}, "bytes 5-9/*": {5, 0, true}, "bytes */10": {0, 10, true},
		"": {}, "bytes": {}, "bytes 5-9": {}, "bytes 9-5/10": {}, "bytes 5-10/10": {}, "bytes -5/10": {}, "bytes */*": {}, "lines 0-9/10": {}, "bytes 0-9/-1": {}, "bytes a-b/c": {},
	} {
		from, total, ok := contentRange(text)
		if got := (answer{from, total, ok}); ok != want.OK || ok && got != want {
			t.Errorf("%q: got %+v, want %+v", text, got, want)
		}
	}
}
