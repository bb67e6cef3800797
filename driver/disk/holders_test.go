package disk

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestMachineOf_commandLines_onlyMaqetsQEMUsHaveAMachine(t *testing.T) {
	for name, c := range map[string]struct {
		argv []string
		want string
	}{
		"ours":            {[]string{"/usr/bin/qemu-system-x86_64", "-name", "guest=web", "-uuid", "x", "-pidfile", "/run/maqet/web/qemu.pid"}, "web"},
		"another's":       {[]string{"qemu-system-x86_64", "-name", "guest=web", "-pidfile", "/run/libvirt/web.pid"}, ""},
		"without a name":  {[]string{"qemu-system-x86_64", "-pidfile", "/run/maqet/web/qemu.pid"}, ""},
		"one word":        {[]string{"qemu-img"}, ""},
		"cut off":         {[]string{"qemu", "-name"}, ""},
		"no machine name": {[]string{"qemu", "-name", "guest=We b", "-pidfile", "/run/maqet/We b/qemu.pid"}, ""},
		"nothing":         {[]string{"qemu", "-name", "guest=", "-pidfile", "/"}, ""},
	} {
		if got := machineOf(c.argv); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestHolders_processWithTheFileOpen_isNamed(t *testing.T) {
	path := newDisks(t, newImages(t), "root")["root"]
	if got := Holders(path); got != nil {
		t.Errorf("held by %v", got)
	}
	release := holdOpen(t, path)
	defer release()
	got := Holders(path)
	if len(got) != 1 || got[0].Command != "qemu-io" || got[0].PID <= 0 || got[0].PID == os.Getpid() || got[0].Machine != "" {
		t.Fatalf("held by %+v", got)
	}
	if text := got[0].String(); !strings.HasPrefix(text, "qemu-io (pid ") {
		t.Errorf("in words %q", text)
	}
	err := InUse(path, ErrInUse)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "held by qemu-io (pid ") || !strings.Contains(err.Error(), "wait until the command") {
		t.Errorf("error %v", err)
	}
}

func TestHolder_ofAMachine_saysWhichAndWhatToDo(t *testing.T) {
	h := Holder{PID: 7, Command: "qemu-system-x86_64", Machine: "web"}
	if got, want := h.String(), "qemu-system-x86_64 (pid 7, machine web)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := (Holder{PID: 7}).String(), "pid 7"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := printable("a\x1b[31m\n"); got != "a?[31m?" {
		t.Errorf("printable is %q", got)
	}
}
