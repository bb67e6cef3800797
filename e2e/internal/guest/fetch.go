package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

const busyboxPackage = "busybox-static"

// debPackage is one downloaded Debian package.
type debPackage struct {
	Name    string
	Version string
	File    string
}

// fetch returns the flavour's kernel and the busybox package, downloading those
// that dir does not hold yet.
func fetch(ctx context.Context, dir string, flavour Flavour) ([]debPackage, error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("the tiny guest is made for amd64 hosts, this is %s; run this on an amd64 machine", runtime.GOARCH)
	}
	for _, tool := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%s is needed to fetch the kernel package: %w; run this on Debian", tool, err)
		}
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	kernel, err := fetchOne(ctx, dir, flavour.pattern, func(ctx context.Context) (string, error) {
		return resolveKernel(ctx, flavour)
	})
	if err != nil {
		return nil, err
	}
	busybox, err := fetchOne(ctx, dir, busyboxPackage+"_*.deb", func(context.Context) (string, error) {
		return busyboxPackage, nil
	})
	if err != nil {
		return nil, err
	}
	return []debPackage{kernel, busybox}, nil
}

// fetchOne returns the package in dir that matches pattern, or downloads the one
// that resolve names. Package lists age: when the archive no longer has what they
// name, and we may refresh them, that is tried once.
func fetchOne(ctx context.Context, dir, pattern string, resolve func(context.Context) (string, error)) (debPackage, error) {
	have, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return debPackage{}, err
	}
	if len(have) > 0 {
		return describe(ctx, have[len(have)-1])
	}
	attempt := func() error {
		name, err := resolve(ctx)
		if err != nil {
			return err
		}
		return download(ctx, dir, name)
	}
	err = attempt()
	if err != nil && os.Geteuid() == 0 {
		if _, updateErr := output(ctx, dir, "apt-get", "update", "-q"); updateErr != nil {
			return debPackage{}, errors.Join(err, updateErr)
		}
		err = attempt()
	}
	if err != nil {
		return debPackage{}, fmt.Errorf("%w; if the package lists are missing or old, run as root: apt-get update", err)
	}
	have, err = filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return debPackage{}, err
	}
	if len(have) == 0 {
		return debPackage{}, fmt.Errorf("apt-get download left no file %s in %s", pattern, dir)
	}
	return describe(ctx, have[len(have)-1])
}

var dependsLine = regexp.MustCompile(`(?m)^\s*Depends: (linux-image-\S+-amd64)$`)

// resolveKernel asks which kernel package the meta package stands for today.
func resolveKernel(ctx context.Context, flavour Flavour) (string, error) {
	out, err := output(ctx, "", "apt-cache", "depends", "--important", flavour.meta)
	if err != nil {
		return "", err
	}
	match := dependsLine.FindStringSubmatch(out)
	if match == nil {
		return "", fmt.Errorf("apt-cache knows no kernel behind %s", flavour.meta)
	}
	return match[1], nil
}

// download puts the package into dir under its final name only when it is whole.
func download(ctx context.Context, dir, name string) (err error) {
	partial, err := os.MkdirTemp(dir, ".partial-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(partial)) }()
	args := []string{"download", "-q", name}
	if os.Geteuid() == 0 {
		// apt's own user cannot write into a folder that only root may enter.
		args = append([]string{"-o", "APT::Sandbox::User=root"}, args...)
	}
	if _, err := output(ctx, partial, "apt-get", args...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(partial, "*.deb"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := os.Rename(file, filepath.Join(dir, filepath.Base(file))); err != nil {
			return err
		}
	}
	return nil
}

// describe reads name and version from the package itself.
func describe(ctx context.Context, file string) (debPackage, error) {
	out, err := output(ctx, "", "dpkg-deb", "--show", "--showformat", "${Package} ${Version}", file)
	if err != nil {
		return debPackage{}, fmt.Errorf("%w; remove %s to download it again", err, file)
	}
	name, version, _ := strings.Cut(strings.TrimSpace(out), " ")
	return debPackage{Name: name, Version: version, File: file}, nil
}

// output runs a tool to its end and returns what it printed; the error carries
// the last line of its complaint.
func output(ctx context.Context, dir, tool string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return "", fmt.Errorf("%s %s: %w: %s", tool, strings.Join(args, " "), err, lines[len(lines)-1])
	}
	return stdout.String(), nil
}
