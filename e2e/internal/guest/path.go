package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// buildTimeout bounds a first build, most of which is the download.
const buildTimeout = 5 * time.Minute

// Path returns the guest with the cloud kernel; see [PathOf].
func Path(t testing.TB) Guest {
	t.Helper()
	return PathOf(t, Cloud())
}

// PathOf returns the guest of a flavour from the repository's build folder, building
// it first when needed; test processes running at once build it only once. The test
// fails when it cannot be built, because a test without its guest has proved nothing.
func PathOf(t testing.TB, flavour Flavour) Guest {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	g, err := Build(ctx, filepath.Join(root, "build", flavour.dir), flavour)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// Root returns the top folder of the repository: the nearest folder with a go.mod
// at or above the working directory, which for a test is its package's folder.
func Root() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		_, err := os.Stat(filepath.Join(dir, "go.mod"))
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod at or above %s; run this inside the repository", start)
		}
	}
}
