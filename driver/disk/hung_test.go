package disk

import (
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/internal/slowfs"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

func TestLook_fileSystemHangs_isToldAndNotTakenForAMissingFile(t *testing.T) {
	images := New(Config{Timing: timing.Default()})
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	images.files = slowfs.NewWith(50*time.Millisecond, func(string) (fs.FileInfo, error) {
		<-release
		return nil, fs.ErrNotExist
	})
	for _, path := range []string{"/nfs/a.raw", "/dev/lost"} {
		d := manifest.Disk{Name: "a", File: path, Format: manifest.FormatRaw}
		kinds := Kinds{File{Images: images}, Device{Images: images}}
		for _, deep := range []bool{false, true} {
			file, _ := kinds.Look(t.Context(), &d, "", deep)
			if !strings.Contains(file.Err, path+": its file system does not answer") || file.Exists {
				t.Errorf("%s: %+v", path, file)
			}
		}
	}
}
