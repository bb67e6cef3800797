package e2e

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/maqet/maqet/e2e/internal/host"
)

// ordinary is a user that owns nothing on this host but what a test gives it.
const ordinary = 54321

// newUser makes a host whose commands run as an ordinary user: another one when
// the tests run as root, else whoever runs them. Its folders are those of XDG.
func newUser(t *testing.T) *watching {
	t.Helper()
	// Not t.TempDir: other users may not enter it.
	base, err := os.MkdirTemp("", "mqu") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	w := &watching{T: t, Host: host.New(t, copyOf(t, binary, filepath.Join(base, "maqet"))), dir: filepath.Join(base, "vms")}
	t.Cleanup(func() {
		// A folder of mode 0 is removed by nobody but root.
		_ = os.Chmod(w.dir, 0o700)
		if err := os.RemoveAll(base); err != nil {
			t.Error(err)
		}
	})
	home, runtime := filepath.Join(base, "home"), filepath.Join(base, "rt")
	for _, dir := range []string{base, w.dir, home, runtime} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.State = filepath.Join(home, ".local", "state", "maqet")
	w.Host.Run = filepath.Join(runtime, "maqet")
	w.Environment = []string{"HOME=" + home, "XDG_RUNTIME_DIR=" + runtime, "PATH=" + os.Getenv("PATH"), "USER=ordinary"}
	if os.Getuid() == 0 {
		w.Credential = &syscall.Credential{Uid: ordinary, Gid: ordinary}
		for _, dir := range []string{w.dir, home, runtime} {
			if err := os.Chown(dir, ordinary, ordinary); err != nil {
				t.Fatal(err)
			}
		}
	}
	return w
}

// copyOf copies a program to where every user may run it.
func copyOf(t *testing.T, from, to string) string {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return to
}
