package qemu

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestQuoteShell_anything_aShellReadsTheSameWords(t *testing.T) {
	words := []string{"printf", `%s\0`, "", "plain", "a=b", awkward, "'", "''", "-x", "*", "~", "#", "a\nb", "$(id)", "!!", "{a,b}", "é"}
	out, err := exec.Command("sh", "-c", QuoteShell(words)).Output() //nolint:gosec // G204: the words are above.
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if diff := cmp.Diff(words[2:], got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestQuoteShell_firstWordWithEqualsSign_isNoAssignment(t *testing.T) {
	if got, want := QuoteShell([]string{"A=b", "c=d"}), "'A=b' c=d"; got != want {
		t.Errorf("QuoteShell = %s, want %s", got, want)
	}
}
