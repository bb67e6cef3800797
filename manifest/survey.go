package manifest

import (
	"context"
	"fmt"
	"path/filepath"
)

// Survey is what decides which files Load reads, and what they are. Whoever
// keeps an eye on all of it notices every change of what Load would give.
type Survey struct {
	// Files are the files that Load would read, in its order.
	Files []string
	// Folders are the folders that were listed, each once, however many links
	// lead to it. A new name in one of them may be a manifest.
	Folders []string
	// Looked are the paths whose state decided: the given ones, and in each folder
	// its .maqetignore and every name that may be a manifest or lead to one, such
	// as a folder and a symbolic link. Folders come before what they hold. Some
	// need not exist: a missing .maqetignore decides too.
	Looked []string
	// Faults are the paths that cannot be used as they are.
	Faults Errors
}

// Look surveys the files and folders at paths, as Load does before it reads
// them, and opens no manifest. The paths must be absolute, and so are those of
// the result; symbolic links in them are not resolved. The error is that of ctx,
// or about a path that is not absolute.
func Look(ctx context.Context, paths []string) (*Survey, error) {
	l := newLister()
	for _, path := range paths {
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("look at %s: the path is not absolute", quote(path))
		}
		path = filepath.Clean(path)
		if err := l.given(ctx, path, path); err != nil {
			return nil, err
		}
	}
	survey := &Survey{Folders: l.folders, Looked: l.looked, Faults: l.faults}
	for _, src := range l.sources {
		survey.Files = append(survey.Files, src.path)
	}
	return survey, nil
}
