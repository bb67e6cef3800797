package guest

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const agentPackage = "qemu-guest-agent"

// agentTree is the agent's package and those it depends on, unpacked over each other.
type agentTree struct {
	dir string
}

// fetchAgent downloads the agent's package, what it depends on, and what that depends
// on, and unpacks them into scratch. That is more than the agent's libraries, and
// deep enough for all of them.
func fetchAgent(ctx context.Context, packages, scratch string) (agentTree, error) {
	tree := agentTree{filepath.Join(scratch, "tree")}
	if err := os.MkdirAll(packages, 0o750); err != nil {
		return tree, err
	}
	const levels = 3
	level, done := []string{agentPackage}, map[string]bool{}
	for range levels {
		var next []string
		for _, name := range level {
			if done[name] {
				continue
			}
			done[name] = true
			deb, err := fetchOne(ctx, packages, name+"_*.deb", func(context.Context) (string, error) { return name, nil })
			if err != nil {
				return tree, err
			}
			if _, err := output(ctx, "", "dpkg-deb", "--extract", deb.File, tree.dir); err != nil {
				return tree, err
			}
			depends, err := output(ctx, "", "dpkg-deb", "--show", "--showformat", "${Depends}", deb.File)
			if err != nil {
				return tree, err
			}
			next = append(next, firstChoices(depends)...)
		}
		level = next
	}
	return tree, nil
}

// firstChoices are the names in a Depends line: of alternatives the first.
func firstChoices(depends string) []string {
	var names []string
	for part := range strings.SplitSeq(depends, ",") {
		first, _, _ := strings.Cut(part, "|")
		first, _, _ = strings.Cut(strings.TrimSpace(first), " ")
		if name, _, _ := strings.Cut(first, ":"); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// libraries are the files a program needs, by their path in the guest: the loader,
// and every library by the name the program asks for.
func (t agentTree) libraries(program string) (map[string]string, error) {
	files := map[string]string{}
	loader, err := t.find("ld-linux-x86-64.so.2")
	if err != nil {
		return nil, err
	}
	files["lib64/ld-linux-x86-64.so.2"] = loader
	queue := []string{filepath.Join(t.dir, program)}
	for len(queue) > 0 {
		needed, err := neededBy(queue[0])
		if err != nil {
			return nil, err
		}
		queue = queue[1:]
		for _, name := range needed {
			at := "lib/x86_64-linux-gnu/" + name
			if _, known := files[at]; known || strings.HasPrefix(name, "ld-linux") {
				continue
			}
			file, err := t.find(name)
			if err != nil {
				return nil, err
			}
			files[at] = file
			queue = append(queue, file)
		}
	}
	return files, nil
}

func neededBy(path string) (names []string, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.ImportedLibraries()
}

// find is the library of that name, wherever the package has put it. What it links to
// is looked for in the tree, too.
func (t agentTree) find(name string) (string, error) {
	found := ""
	err := filepath.WalkDir(t.dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == name && !entry.IsDir() {
			found = path
			return fs.SkipAll
		}
		return err
	})
	if err != nil {
		return "", err
	}
	if found == "" {
		return "", fmt.Errorf("no package that %s depends on has %s", agentPackage, name)
	}
	info, err := os.Lstat(found)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return found, err
	}
	target, err := os.Readlink(found)
	if err != nil {
		return "", err
	}
	if filepath.Base(target) == name {
		return filepath.Join(t.dir, target), nil
	}
	return t.find(filepath.Base(target))
}
