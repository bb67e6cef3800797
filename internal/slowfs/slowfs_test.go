package slowfs_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maqet/maqet/internal/slowfs"
)

// hung is a file system that answers once it is let go.
type hung struct {
	release chan struct{}
	asked   atomic.Int32
}

func (h *hung) stat(string) (fs.FileInfo, error) {
	h.asked.Add(1)
	<-h.release
	return nil, fs.ErrNotExist
}

func TestStat_fileSystemHangs_isGivenUpAndNotAskedAgainMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hung{release: make(chan struct{})}
		files := slowfs.NewWith(5*time.Second, h.stat)
		for range 3 {
			begun := time.Now()
			_, err := files.Stat(t.Context(), "/nfs/a")
			if !errors.Is(err, slowfs.ErrHung) || !strings.Contains(err.Error(), "/nfs/a") || !strings.Contains(err.Error(), "5s") {
				t.Errorf("error is %v", err)
			}
			if waited := time.Since(begun); waited != 5*time.Second {
				t.Errorf("waited %s", waited)
			}
		}
		if n := h.asked.Load(); n != 1 {
			t.Errorf("it was asked %d times", n)
		}
		if _, err := files.StatInTime("/nfs/a"); !errors.Is(err, slowfs.ErrHung) || h.asked.Load() != 1 {
			t.Errorf("error is %v after %d questions", err, h.asked.Load())
		}
		// Another path is another question, whoever hangs.
		if _, err := files.Stat(t.Context(), "/nfs/b"); !errors.Is(err, slowfs.ErrHung) || h.asked.Load() != 2 {
			t.Errorf("error is %v after %d questions", err, h.asked.Load())
		}
		// It answers again while somebody waits, who asks anew: what it says to the old
		// question may be old.
		answer := make(chan error)
		go func() {
			_, err := files.Stat(t.Context(), "/nfs/a")
			answer <- err
		}()
		synctest.Wait()
		close(h.release)
		if err := <-answer; !errors.Is(err, fs.ErrNotExist) || h.asked.Load() != 3 {
			t.Errorf("error is %v after %d questions", err, h.asked.Load())
		}
	})
}

func TestStat_callerLeaves_itsErrorIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hung{release: make(chan struct{})}
		files := slowfs.NewWith(time.Hour, h.stat)
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := files.Stat(ctx, "/nfs/a"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error is %v", err)
			}
			cancel()
		}
		if n := h.asked.Load(); n != 1 {
			t.Errorf("it was asked %d times", n)
		}
		close(h.release)
	})
}

func TestStat_answers_areThoseOfTheHost(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(file, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, files := range []*slowfs.Files{slowfs.New(time.Minute), slowfs.New(0), nil} {
		if info, err := files.Stat(t.Context(), file); err != nil || info.Size() != 3 {
			t.Errorf("%v, error %v", info, err)
		}
		if _, err := files.Stat(t.Context(), file+"x"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error is %v", err)
		}
	}
}
