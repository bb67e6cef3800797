package qemu

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/maqet/maqet/driver/qga"
)

// TestCopy_guest_isThereAndBack has a source that stops for a while in the middle and one
// that fails: nobody else waits for the first, and nothing is left of the second.
func TestCopy_guest_isThereAndBack(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", agentGuest(t, ""), agentProbe)
	r.start(vm, false)
	r.untilReady(vm)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	sent := make([]byte, copyBatch+qga.MaxChunk+1)
	_, err := rand.Read(sent)
	r.must(err)
	var copied int64
	slow := bytes.NewReader(sent)
	asked := false
	r.must(r.CopyIn(ctx, "web", CopyRequest{Path: "/tmp/file", Source: readerFunc(func(b []byte) (int, error) {
		if !asked && slow.Len() < len(sent)/2 {
			asked = true
			if _, err := r.Exec(ctx, "web", ExecRequest{Command: []string{"true"}}); err != nil {
				t.Errorf("while the source is slow: %v", err)
			}
		}
		return slow.Read(b)
	}), Copied: func(n int64) { copied = n }}))
	if copied != int64(len(sent)) || !asked {
		t.Errorf("told of %d bytes of %d, others asked: %v", copied, len(sent), asked)
	}
	var back bytes.Buffer
	r.must(r.CopyOut(ctx, "web", "/tmp/file", &back, nil))
	if !bytes.Equal(back.Bytes(), sent) {
		t.Errorf("%d bytes came back of %d, or others", back.Len(), len(sent))
	}

	broken := errors.New("a broken source")
	source := iotest.ErrReader(broken)
	if err := r.CopyIn(ctx, "web", CopyRequest{Path: "/tmp/other", Source: source}); !errors.Is(err, broken) {
		t.Errorf("CopyIn = %v, want the reason of its source", err)
	}
	result, err := r.Exec(ctx, "web", ExecRequest{Command: []string{"ls", "-A", "/tmp"}})
	r.must(err)
	if strings.Contains(string(result.Out), "other") {
		t.Errorf("in the guest is left: %s", result.Out)
	}
	if err := r.CopyOut(ctx, "web", "/tmp", &back, nil); err == nil {
		t.Error("a directory is copied")
	}
}

// readerFunc is a reader that is a function.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestCopy_guestWithoutShell_isTold(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", agentGuest(t, ""), agentProbe)
	r.start(vm, false)
	r.untilReady(vm)
	r.fakeAgent(map[string]string{
		"guest-file-open": `{"return": 7}`, "guest-file-close": `{"return": {}}`, "guest-file-read": `{"return": {"count": 0, "buf-b64": "", "eof": false}}`,
		"guest-file-write": `{"return": {"count": 2, "eof": false}}`,
		"guest-exec":       `{"error": {"class": "GenericError", "desc": "no such file"}}`,
	})
	err := r.CopyIn(t.Context(), "web", CopyRequest{Path: "/tmp/file", Source: strings.NewReader("hi")})
	if e := lifecycle(err); e == nil || !strings.Contains(e.Hint, "--in-place") || !strings.Contains(err.Error(), ".file.maqet-") {
		t.Errorf("CopyIn = %v, want what is left and a remedy", err)
	}
	r.must(r.CopyIn(t.Context(), "web", CopyRequest{Path: "/tmp/file", InPlace: true, Source: strings.NewReader("hi")}))
	// One that gives nothing is not read for ever.
	if err := r.CopyOut(t.Context(), "web", "/dev/strange", &bytes.Buffer{}, nil); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("CopyOut of what gives nothing = %v", err)
	}
}

// TestCopyIn_guestThatNeverEndsWhatItRuns_endsInTime has an agent that answers all the
// time that the program, which gives the file its mode, has not ended yet.
func TestCopyIn_guestThatNeverEndsWhatItRuns_endsInTime(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", agentGuest(t, ""), agentProbe)
	r.start(vm, false)
	r.untilReady(vm)
	r.timing.Agent, r.timing.AgentVisit = 500*time.Millisecond, 2*time.Second
	r.fakeAgent(map[string]string{
		"guest-exec": `{"return": {"pid": 9}}`, "guest-exec-status": `{"return": {"exited": false}}`,
	})
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	tr := &transfer{driver: r.Driver, name: "web"}
	err := tr.run(ctx, "chmod", "0600", "/tmp/file")
	var given *GivenUpError
	if ctx.Err() != nil || !errors.As(err, &given) || given.PID != 9 || !strings.Contains(err.Error(), "2s") {
		t.Errorf("run = %v, want that it took too long", err)
	}
}
