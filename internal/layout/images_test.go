package layout_test

import (
	"strings"
	"testing"

	"github.com/maqet/maqet/internal/layout"
)

func TestImageDigest_names_areToldFromOthers(t *testing.T) {
	sha256, sha512 := strings.Repeat("0a", 32), strings.Repeat("f9", 64)
	for key, want := range map[string]string{
		"sha256-" + sha256: "sha256:" + sha256, "sha512-" + sha512: "sha512:" + sha512,
		"sha256-" + sha512: "", "sha512-" + sha256: "", "md5-" + sha256: "", "sha256-": "", "": "", "-": "",
		"sha256-" + strings.ToUpper(sha256): "", "sha256-" + sha256 + "0": "", "sha256-../../etc/passwd": "",
	} {
		got, ok := layout.ImageDigest(key)
		if got != want || ok != (want != "") {
			t.Errorf("%q: got %q, %v", key, got, ok)
		}
		if ok && layout.ImageKey(got) != key {
			t.Errorf("%q: back again it is %q", key, layout.ImageKey(got))
		}
	}
	where := layout.Layout{State: "/state"}
	for _, format := range []string{"qcow2", "raw", "json"} {
		if got, ok := layout.DigestOfImage(where.Image("sha256-"+sha256, format)); !ok || got != "sha256:"+sha256 {
			t.Errorf("got %q, %v", got, ok)
		}
	}
	if got, ok := layout.DigestOfImage("/srv/disk.qcow2"); ok {
		t.Errorf("got %q", got)
	}
}
