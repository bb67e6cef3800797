package bench

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func newSite(t *testing.T) *site {
	t.Helper()
	lab, err := NewLab(Config{Rawclient: "/opt/raw client"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := lab.site("one")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRewrite_argvOfMaqet_foldersAndSocketsOfTheTwin(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	state, run := s.layout.State, s.layout.Run
	got, err := s.rewrite("web", []string{
		"/usr/bin/qemu-system-x86_64", "-pidfile", run + "/web/qemu.pid",
		"-chardev", "socket,id=maqet.qmp,fd=3,server=on,wait=off",
		"-blockdev", `{"driver":"file","filename":"` + state + `/disks/web/root.qcow2"}`,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"/usr/bin/qemu-system-x86_64", "-pidfile", s.raw + "/r/web/qemu.pid",
		"-chardev", "socket,id=maqet.qmp,path=" + s.raw + "/r/web/qmp.sock,server=on,wait=off",
		"-blockdev", `{"driver":"file","filename":"` + s.raw + `/s/disks/web/root.qcow2"}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("command line (-want +got):\n%s", diff)
	}
}

func TestRewrite_descriptorOfATap_isRefused(t *testing.T) {
	t.Parallel()
	if _, err := newSite(t).rewrite("web", []string{"-netdev", "tap,id=lan.net,fd=5"}); !errors.Is(err, errDescriptor) {
		t.Errorf("error %v, want %v", err, errDescriptor)
	}
}

func TestScript_machineWithDisk_makesItStartsAndAwaits(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	path, err := s.script(twin{Name: "web", Argv: []string{"qemu", "-name", "it's"}, Socket: "/r/q.sock", Log: "/r/log"}, true)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := "#!/bin/sh\nset -eu\n" +
		"qemu-img create -q -f qcow2 " + s.raw + "/s/disks/web/root.qcow2 1G\n" +
		`qemu -name 'it'\''s' </dev/null >>/r/log 2>&1 &` + "\n" +
		"exec '/opt/raw client' await /r/q.sock\n"
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("script (-want +got):\n%s", diff)
	}
}

func TestClear_leftovers_removedButNotTheDisk(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	one := twin{Name: "web", Socket: filepath.Join(s.raw, "r", "web", "qmp.sock")}
	for _, path := range []string{one.Socket, s.disk(one)} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.clear([]twin{one}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(one.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if _, err := os.Stat(s.disk(one)); err != nil {
		t.Errorf("the disk is gone: %v", err)
	}
}

func TestLabRun_programFails_errorShowsWhatItSaid(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	err := s.lab.run(t.Context(), []string{"WORD=because"}, "sh", "-c", "echo it failed $WORD; exit 7")
	if err == nil || !strings.Contains(err.Error(), "exit status 7") || !strings.Contains(err.Error(), "it failed because") {
		t.Errorf("error %v, want the exit status and the output", err)
	}
}
