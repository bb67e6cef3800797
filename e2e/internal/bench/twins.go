package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/maqet/maqet/driver/qemu"
)

// twin is a machine's command line without maqet: the same words, but for its
// folders, and sockets that QEMU makes itself.
type twin struct {
	Name   string   `json:"name"`
	Argv   []string `json:"argv"`
	Socket string   `json:"socket"`
	Log    string   `json:"log"`
}

// inherited is a character device over a socket that maqet hands to QEMU.
var inherited = regexp.MustCompile(`^socket,id=maqet\.([a-z]+),fd=[0-9]+,`)

// errDescriptor is an argument that needs a descriptor nobody passes.
var errDescriptor = errors.New("it needs a descriptor that a shell cannot make")

// twins asks maqet for the command lines of the site's machines, which must have
// been applied, and makes their twins.
func (s *site) twins(ctx context.Context) ([]twin, error) {
	text, err := s.output(ctx, append([]string{"render", "-o", "json"}, s.names...)...)
	if err != nil {
		return nil, err
	}
	// One machine is printed as itself, several as a list.
	if len(s.names) == 1 {
		text = append(append([]byte{'['}, text...), ']')
	}
	var list []twin
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("read what maqet render printed: %w", err)
	}
	for i := range list {
		t := &list[i]
		if t.Argv, err = s.rewrite(t.Name, t.Argv); err != nil {
			return nil, err
		}
		folder := filepath.Join(s.raw, "r", t.Name)
		t.Socket, t.Log = filepath.Join(folder, "qmp.sock"), filepath.Join(folder, "qemu.log")
		for _, dir := range []string{folder, filepath.Join(s.raw, "s", "disks", t.Name), filepath.Join(s.raw, "s", "logs", t.Name)} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return nil, fmt.Errorf("make a folder of a raw machine: %w", err)
			}
		}
	}
	return list, nil
}

// rewrite puts the twin's folders and sockets into a command line.
func (s *site) rewrite(name string, argv []string) ([]string, error) {
	folders := strings.NewReplacer(s.layout.State+"/", filepath.Join(s.raw, "s")+"/", s.layout.Run+"/", filepath.Join(s.raw, "r")+"/")
	changed := make([]string, len(argv))
	for i, arg := range argv {
		path := filepath.Join(s.raw, "r", name, "$1.sock")
		arg = inherited.ReplaceAllString(folders.Replace(arg), "socket,id=maqet.$1,path="+path+",")
		if strings.Contains(arg, "fd=") {
			return nil, fmt.Errorf("start %s raw with %q: %w", name, arg, errDescriptor)
		}
		changed[i] = arg
	}
	return changed, nil
}

// clear kills the twins and removes what they leave.
func (s *site) clear(twins []twin) error {
	killBelow(s.raw)
	for _, t := range twins {
		left, err := filepath.Glob(filepath.Join(filepath.Dir(t.Socket), "*"))
		if err != nil {
			return err
		}
		for _, path := range left {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("clear after a raw machine: %w", err)
			}
		}
	}
	return nil
}

// disk is where the twin's disk lies.
func (s *site) disk(t twin) string {
	return filepath.Join(s.raw, "s", "disks", t.Name, diskName+".qcow2")
}

// script writes the shell script that starts a twin, after making its disk when
// asked to, and waits until its guest runs.
func (s *site) script(t twin, makeDisk bool) (string, error) {
	text := "#!/bin/sh\nset -eu\n"
	if makeDisk {
		text += qemu.QuoteShell([]string{"qemu-img", "create", "-q", "-f", "qcow2", s.disk(t), rawDiskSize}) + "\n"
	}
	text += qemu.QuoteShell(t.Argv) + " </dev/null >>" + qemu.QuoteShell([]string{t.Log}) + " 2>&1 &\n"
	text += "exec " + qemu.QuoteShell([]string{s.lab.Rawclient, "await", t.Socket}) + "\n"
	path := filepath.Join(s.raw, t.Name+".sh")
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil { //nolint:gosec // A script is executable.
		return "", fmt.Errorf("write the script of a raw machine: %w", err)
	}
	return path, nil
}

// save writes something as JSON into the twins' folder.
func (s *site) save(name string, v any) (string, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	path := filepath.Join(s.raw, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	return path, nil
}

// makeDisk makes the twin's disk ahead of its start.
func (s *site) makeDisk(ctx context.Context, t twin) error {
	return s.lab.run(ctx, nil, "qemu-img", "create", "-q", "-f", "qcow2", s.disk(t), rawDiskSize)
}

// removeDisk removes the twin's disk, so that it has to be made.
func (s *site) removeDisk(t twin) error {
	if err := os.Remove(s.disk(t)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the disk of a raw machine: %w", err)
	}
	return nil
}
