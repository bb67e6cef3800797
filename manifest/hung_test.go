package manifest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/internal/slowfs"
)

// TestLoad_userDataFileHangs_isAFaultOfThatMachine has a file on a server that does not
// answer, for which somebody else has been waiting.
func TestLoad_userDataFileHangs_isAFaultOfThatMachine(t *testing.T) {
	dir := t.TempDir()
	const text = `apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata: {name: a}
spec: {cloudInit: {userDataFile: ./hung}}
---
apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata: {name: b}
spec: {}
`
	for name, content := range map[string]string{"vms.yaml": text, "hung": "#cloud-config\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	release := make(chan struct{})
	defer close(release)
	files := slowfs.NewWith(50*time.Millisecond, func(string) (fs.FileInfo, error) {
		<-release
		return nil, fs.ErrNotExist
	})
	if _, err := files.StatInTime(filepath.Join(dir, "hung")); !errors.Is(err, slowfs.ErrHung) {
		t.Fatalf("error is %v", err)
	}
	set, err := Load(t.Context(), []string{dir}, LoadOptions{Files: files})
	if err == nil || !strings.Contains(err.Error(), `vms.yaml:4:34: spec.cloudInit.userDataFile: "./hung" cannot be read`) || !errors.Is(err, slowfs.ErrHung) {
		t.Errorf("error is %v", err)
	}
	if set == nil || len(set.VMs()) != 1 || set.VMs()[0].Metadata.Name != "b" {
		t.Errorf("the set is %+v", set)
	}
	// Who leaves is told why, and waits for nobody.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := &CloudInit{UserDataFile: filepath.Join(dir, "hung")}
	if _, err := c.ReadUserData(ctx, slowfs.New(time.Hour)); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}
