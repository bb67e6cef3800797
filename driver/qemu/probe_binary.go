package qemu

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// BinaryError is a QEMU binary that is missing, does not run or is too old.
type BinaryError struct {
	// Binary is the path, or the name that was looked up.
	Binary string
	// Msg says what is wrong and Hint what to do.
	Msg, Hint string
	// Err is the cause, if another error is.
	Err error
}

// Error is "qemu-system-x86_64 message: cause; hint".
func (e *BinaryError) Error() string {
	text := e.Binary + " " + e.message()
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// message is Msg with the cause behind it.
func (e *BinaryError) message() string {
	if e.Err == nil {
		return e.Msg
	}
	return e.Msg + ": " + e.Err.Error()
}

// Unwrap is the cause.
func (e *BinaryError) Unwrap() error { return e.Err }

// binaryFile is a QEMU binary as it lies on the disk.
type binaryFile struct {
	// path is absolute, symlinks resolved.
	path string
	// key changes whenever the file or its modules do.
	key string
}

// emulatorPrefix begins the name of every system emulator of QEMU.
const emulatorPrefix = "qemu-system-"

// findBinary finds a binary without running it.
func findBinary(binary string) (binaryFile, error) {
	if binary == "" {
		binary = emulatorPrefix + HostArch()
	}
	if strings.Contains(binary, "/") && !filepath.IsAbs(binary) {
		return binaryFile{}, &BinaryError{Binary: binary, Msg: "is neither a name nor an absolute path", Hint: "write the whole path, or a name that is in PATH"}
	}
	found, err := exec.LookPath(binary)
	if err != nil {
		return binaryFile{}, notFound(binary, err)
	}
	path, err := filepath.EvalSymlinks(found)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return binaryFile{}, notFound(binary, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return binaryFile{}, notFound(binary, err)
	}
	key := fmt.Sprintf("%s %d %d%s", path, info.Size(), info.ModTime().UnixNano(), moduleKey(path))
	return binaryFile{path: path, key: key}, nil
}

// notFound is the error of a binary that cannot be run.
func notFound(binary string, err error) error {
	if lookup, ok := errors.AsType[*exec.Error](err); ok {
		err = lookup.Err
	}
	e := &BinaryError{Binary: binary, Msg: "cannot be run", Err: err, Hint: "check the file and its permissions"}
	switch {
	case errors.Is(err, exec.ErrNotFound):
		e.Msg, e.Err, e.Hint = "is not in PATH", nil, "install QEMU"+debianPackage(binary)
	case errors.Is(err, os.ErrNotExist):
		e.Msg, e.Err, e.Hint = "does not exist", nil, "install QEMU"+debianPackage(binary)+", or correct spec.emulator.binary"
	}
	return e
}

// debianPackage names the package a binary comes in on Debian and Ubuntu.
func debianPackage(binary string) string {
	arch, ok := strings.CutPrefix(filepath.Base(binary), emulatorPrefix)
	if !ok {
		return ""
	}
	suffix := "misc"
	switch arch {
	case "x86_64", "i386":
		suffix = "x86"
	case "aarch64", "arm":
		suffix = "arm"
	case "ppc", "ppc64":
		suffix = "ppc"
	}
	return " (on Debian and Ubuntu: apt install qemu-system-" + suffix + ")"
}

// HostArch is QEMU's name of the architecture that maqet was built for.
func HostArch() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "386":
		return "i386"
	case "arm64":
		return "aarch64"
	case "ppc64le":
		return "ppc64"
	case "loong64":
		return "loongarch64"
	default:
		return runtime.GOARCH
	}
}

// moduleKey tells the states of the folders where QEMU of that path keeps its
// modules apart: installing a module package changes what a binary can do, and
// not the binary.
func moduleKey(path string) string {
	prefix := filepath.Dir(filepath.Dir(path))
	dirs := []string{
		os.Getenv("QEMU_MODULE_DIR"),
		filepath.Join(prefix, "lib", "qemu"),
		filepath.Join(prefix, "lib64", "qemu"),
		filepath.Join(prefix, "lib", multiarch(), "qemu"),
	}
	var b strings.Builder
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		if info, err := os.Stat(dir); err == nil { //nolint:gosec // G703: QEMU itself reads the folder the variable names; this only looks at its date.
			fmt.Fprintf(&b, " %s %d", dir, info.ModTime().UnixNano())
		}
	}
	return b.String()
}

// multiarch is the folder below lib where Debian keeps libraries of this architecture.
func multiarch() string {
	switch runtime.GOARCH {
	case "arm":
		return "arm-linux-gnueabihf"
	case "386":
		return "i386-linux-gnu"
	case "ppc64le":
		return "powerpc64le-linux-gnu"
	default:
		return HostArch() + "-linux-gnu"
	}
}
