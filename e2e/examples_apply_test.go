package e2e

import (
	"path/filepath"
	"regexp"
	"testing"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
)

// TestExamples_withHelpers_areApplied applies the examples that need more of the host than
// QEMU. That such guests boot is shown by tests of their own.
func TestExamples_withHelpers_areApplied(t *testing.T) {
	t.Parallel()
	guest.Path(t)
	for folder, c := range map[string]struct {
		vm   string
		says []string
	}{
		"filesystems": {"dev", []string{`Filesystem src: +virtiofs`, `Filesystem manifests: +9p`}},
		"firmware":    {"secure", []string{`Firmware: +UEFI with Secure Boot`, `TPM: +tpm-tis`}},
	} {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()
			h := host.New(t, binary)
			h.Must(t, 0, "apply", "-f", filepath.Join(repository(t), "examples", folder))
			text := h.Must(t, 0, "describe", c.vm)
			for _, want := range c.says {
				if !regexp.MustCompile(want).MatchString(text) {
					t.Errorf("describe says no %q:\n%s", want, text)
				}
			}
			h.Must(t, 0, "delete", c.vm, "--delete-disks")
		})
	}
}
