package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/durable"
)

// workEvery is how often it is written down how far work is.
const workEvery = time.Second

// exportPrefix begins the names of exports that are not complete.
const exportPrefix = ".maqet-export-"

// work is what this process does and others may see.
type work struct {
	path string

	mu      sync.Mutex
	now     driver.Work
	written time.Time
}

// beginWork writes down what is about to be done. That comes first: whoever finds it
// after a kill removes what is left.
func (d *Driver) beginWork(w driver.Work) (*work, error) {
	w.PID, w.Who, w.Since = os.Getpid(), d.who, d.now().UTC()
	stat, err := d.proc.stat(w.PID)
	if err != nil {
		return nil, err
	}
	w.Start = stat.start
	if err := os.MkdirAll(d.layout.WorkDir(), dirPerm); err != nil {
		return nil, err
	}
	begun := &work{path: filepath.Join(d.layout.WorkDir(), fmt.Sprintf("%d-%d.json", w.PID, w.Since.UnixNano())), now: w}
	return begun, begun.write()
}

func (w *work) write() error {
	text, err := json.Marshal(w.now)
	if err != nil {
		return err
	}
	return durable.WriteVolatile(w.path, text, 0)
}

// tell notes how far it is. That others cannot be told is no reason to fail.
func (w *work) tell(percent float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now.Percent = int(percent)
	if time.Since(w.written) >= workEvery {
		w.written = time.Now()
		_ = w.write()
	}
}

// end is for work that left nothing behind.
func (w *work) end() { _ = os.Remove(w.path) }

// Works are the long work that processes of this host do outside of QEMU. What a killed
// one left does not count.
func (d *Driver) Works(ctx context.Context) ([]driver.Work, error) {
	var going []driver.Work
	err := d.eachWork(func(w driver.Work, _ string, alive bool) {
		if alive {
			going = append(going, w)
		}
	})
	return going, errors.Join(err, ctx.Err())
}

// eachWork calls do for all that is written down.
func (d *Driver) eachWork(do func(w driver.Work, path string, alive bool)) error {
	entries, err := os.ReadDir(d.layout.WorkDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list the work that goes on: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || filepath.Ext(e.Name()) != ".json" {
			continue
		}
		path := filepath.Join(d.layout.WorkDir(), e.Name())
		w, err := readRecordFile[driver.Work](path, runHint)
		if err != nil || w == nil {
			continue // it has ended just now, or says nothing
		}
		do(*w, path, d.working(w.PID, w.Start))
	}
	return nil
}

// working tells whether a process is there, and the one that is meant.
func (d *Driver) working(pid int, start uint64) bool {
	stat, err := d.proc.stat(pid)
	return err == nil && stat.start == start && !stat.dead()
}

// sweepWork removes what killed processes have left of exports, wherever they went to.
func (d *Driver) sweepWork() error {
	return d.eachWork(func(w driver.Work, path string, alive bool) {
		if alive {
			return
		}
		for _, temp := range w.Temps {
			if strings.HasPrefix(filepath.Base(temp), exportPrefix) {
				if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return // somebody else's to see to, or later
				}
			}
		}
		_ = os.Remove(path)
	})
}

// exportTemp is the name of a file in an export's folder until it is complete: it tells
// whose it is, also to those who come after the run dir has died.
func (d *Driver) exportTemp(final string) (string, error) {
	id, err := readMark(d.layout.StateID())
	if err != nil {
		return "", err
	}
	pid := os.Getpid()
	stat, err := d.proc.stat(pid)
	if err != nil {
		return "", err
	}
	name := fmt.Sprintf("%s%s-%d-%d-%s", exportPrefix, id, pid, stat.start, filepath.Base(final))
	return filepath.Join(filepath.Dir(final), name), nil
}

// sweepExports removes from a folder what killed exports of this state dir have left.
func (d *Driver) sweepExports(dir string) error {
	id, err := readMark(d.layout.StateID())
	if err != nil || id == "" {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), exportPrefix+id+"-")
		if !ours || !e.Type().IsRegular() {
			continue
		}
		words := strings.SplitN(rest, "-", 3)
		if len(words) != 3 {
			continue
		}
		pid, err := strconv.Atoi(words[0])
		start, err2 := strconv.ParseUint(words[1], 10, 64)
		if err != nil || err2 != nil || d.working(pid, start) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
