package folder

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

// mountTmpfs mounts a filesystem at dir, which only root can do.
func mountTmpfs(t *testing.T, dir string) (unmount func() error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m")
	if errors.Is(err, syscall.EPERM) {
		t.Skip("mounting is not permitted here, although this is root")
	}
	do(t, err)
	mounted := true
	unmount = func() error {
		mounted = false
		return syscall.Unmount(dir, 0)
	}
	t.Cleanup(func() {
		if mounted {
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
	return unmount
}

func TestWatcher_mountedAndUnmounted_isHinted(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir+"/vms/a.yaml", "below")
	r := receive(t, swift(dir+"/vms"))
	unmount := mountTmpfs(t, dir+"/vms")
	r.catchUp("a mount over the folder")
	do(t, write(dir+"/vms/b.yaml", "mounted"))
	r.catchUp("a file in the mounted folder")
	do(t, os.Mkdir(dir+"/vms/sub", 0o700), write(dir+"/vms/sub/c.yaml", "mounted"))
	r.catchUp("a folder in the mounted folder")
	do(t, unmount())
	r.catchUp("an unmount")
	do(t, write(dir+"/vms/a.yaml", "below, edited"))
	r.catchUp("an edit after the unmount")
}

func TestWatcher_mountedBeforeTheStart_unmountIsHinted(t *testing.T) {
	dir := t.TempDir()
	do(t, os.MkdirAll(dir+"/disk/vms", 0o700))
	plant(t, dir+"/disk/vms/below.yaml", "below")
	unmount := mountTmpfs(t, dir+"/disk")
	plant(t, dir+"/disk/vms/a.yaml", "mounted")
	r := receive(t, swift(dir+"/disk/vms"))
	do(t, unmount())
	r.catchUp("an unmount of the folder above")
	do(t, write(dir+"/disk/vms/below.yaml", "edited"))
	r.catchUp("an edit after the unmount")
}

func TestWatcher_boundToTwoNames_isWatchedOnce(t *testing.T) {
	dir := t.TempDir()
	do(t, os.Mkdir(dir+"/one", 0o700), os.Mkdir(dir+"/two", 0o700))
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	if err := syscall.Mount(dir+"/one", dir+"/two", "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("bind mounts are not possible here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir+"/two", syscall.MNT_DETACH) })
	r := receive(t, swift(dir+"/two", dir+"/one"))
	do(t, write(dir+"/two/a.yaml", "1"))
	r.catchUp("a file by one name")
	do(t, os.Mkdir(dir+"/one/sub", 0o700), write(dir+"/one/sub/b.yaml", "1"))
	r.catchUp("a folder by the other name")
	do(t, write(dir+"/two/sub/b.yaml", "2"))
	r.catchUp("an edit")
}
