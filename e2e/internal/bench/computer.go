package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// Computer is what the figures hold for.
type Computer struct {
	Cores  int    `json:"cores"`
	CPU    string `json:"cpu"`
	Memory string `json:"memory"`
	Kernel string `json:"kernel"`
	QEMU   string `json:"qemu"`
	// Accelerator is what runs the guests of all cases.
	Accelerator string `json:"accelerator"`
	Maqet       string `json:"maqet"`
	Go          string `json:"go"`
}

// ThisComputer looks at the computer and at the programs that are compared.
func ThisComputer(ctx context.Context, maqet string) (Computer, error) {
	qemu, err := firstLine(ctx, Emulator, "--version")
	if err != nil {
		return Computer{}, fmt.Errorf("%w; install qemu-system-x86", err)
	}
	version, err := firstLine(ctx, maqet, "version")
	if err != nil {
		return Computer{}, fmt.Errorf("%w; build it with `make build`, or name it with -maqet", err)
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return Computer{}, fmt.Errorf("ask for the kernel's version: %w", err)
	}
	return Computer{
		Cores: runtime.NumCPU(), CPU: field("/proc/cpuinfo", "model name"), Memory: field("/proc/meminfo", "MemTotal"),
		Kernel: strings.TrimSpace(string(kernel)), QEMU: qemu,
		// No machine here names an accelerator, and QEMU's own default is this one.
		Accelerator: "tcg", Maqet: version, Go: runtime.Version(),
	}, nil
}

func firstLine(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", name, err)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return strings.TrimSpace(string(line)), nil
}

// field is a value in one of /proc's tables; "unknown" where it has another form.
func field(path, key string) string {
	file, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer func() { _ = file.Close() }() // Only read.
	for lines := bufio.NewScanner(file); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
