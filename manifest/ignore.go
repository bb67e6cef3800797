package manifest

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
)

// ignoreFile lists, in the syntax of gitignore, what a folder holds that is no
// manifest.
const ignoreFile = ".maqetignore"

// ignores are the patterns of a folder and of those above it, up to the root.
type ignores struct {
	patterns []gitignore.Pattern
}

// with adds the patterns of the folder at dir, which is rel below the root.
func (ign *ignores) with(rel []string, name, dir string) (*ignores, Errors) {
	file := filepath.Join(name, ignoreFile)
	text, err := os.ReadFile(filepath.Join(dir, ignoreFile)) //nolint:gosec // it lies in a folder a person named.
	if errors.Is(err, fs.ErrNotExist) {
		return ign, nil
	}
	if err != nil {
		return ign, Errors{{Position: Position{File: file}, Msg: "cannot be read", Hint: "make it readable or remove it", Err: pathCause(err)}}
	}
	var faults Errors
	out := &ignores{patterns: slices.Clip(ign.patterns)}
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		// The library knows neither the escaped first character nor "[!a]".
		if strings.HasPrefix(line, `\#`) {
			line = line[1:]
		}
		line = strings.ReplaceAll(line, "[!", "[^")
		if _, err := path.Match(strings.TrimPrefix(line, "!"), ""); err != nil {
			faults = append(faults, &Error{
				Position: Position{File: file, Line: i + 1, Column: 1},
				Msg:      quote(line) + " is no pattern", Hint: "use the syntax of gitignore", Err: err,
			})
			continue
		}
		out.patterns = append(out.patterns, gitignore.ParsePattern(line, rel))
	}
	return out, faults
}

// match is true for what is to be left out.
func (ign *ignores) match(rel []string, isDir bool) bool {
	return len(ign.patterns) > 0 && gitignore.NewMatcher(ign.patterns).Match(rel, isDir)
}
