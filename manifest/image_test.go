package manifest

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const someSHA256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestResolveImage_paths_resolveAgainstTheFolderAndURLsStay(t *testing.T) {
	for source, want := range map[string]string{
		"a.qcow2": "/srv/vms/a.qcow2", "../b.raw": "/srv/b.raw", "/c.raw": "/c.raw",
		"https://example.org/../d.raw": "https://example.org/../d.raw",
	} {
		img := &Image{Spec: ImageSpec{Source: source, SHA256: strings.ToUpper(someSHA256)}}
		got := ResolveImage(img, "/srv/vms")
		if got.Spec.Source != want || got.Spec.SHA256 != someSHA256 {
			t.Errorf("%s: got %+v", source, got.Spec)
		}
		if img.Spec.Source != source {
			t.Errorf("%s: the given object was changed", source)
		}
		if again := ResolveImage(got, "/elsewhere"); !reflect.DeepEqual(again, got) {
			t.Errorf("%s: resolved twice: %+v", source, again.Spec)
		}
	}
}

func TestCompression_endings_areReadFromThePathAlone(t *testing.T) {
	for source, want := range map[string]string{
		"/a/b.qcow2": "", "b.raw.xz": "xz", "b.gz": "gz", "b.img.zst": "zst", "b.XZ": "", "xz": "",
		"https://example.org/a.xz?x=.gz": "xz", "https://example.org/a?file=b.gz": "", "https://example.org": "",
	} {
		if got := Compression(source); got != want {
			t.Errorf("%s: got %q, want %q", source, got, want)
		}
	}
}

func TestImageSpec_digest_hasItsName(t *testing.T) {
	for want, spec := range map[string]ImageSpec{
		"": {}, "sha256:aa": {SHA256: "aa"}, "sha512:bb": {SHA512: "bb"},
	} {
		if got := spec.Digest(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for digest, want := range map[string]string{"sha256:" + someSHA256: "sha256:0123456789ab", "sha256:12": "sha256:12", "": "", "text": "text"} {
		if got := ShortDigest(digest); got != want {
			t.Errorf("%s: got %q, want %q", digest, got, want)
		}
	}
}

func imageText(name string) string {
	return "---\napiVersion: maqet.io/v1alpha1\nkind: Image\nmetadata: {name: " + name + "}\nspec: {source: a.qcow2, format: qcow2}\n"
}

func TestAdmit_imageOfADisk_mustBeDeclaredOrKnown(t *testing.T) {
	disk := `disks: [{name: root, image: debian}]`
	known := objectsOf(t, imageText("debian"))
	tests := map[string]struct {
		objects []*Object
		others  []*Object
		want    []string
	}{
		"declared": {objectsOf(t, vmText("a", disk)+imageText("debian")), nil, nil},
		"known":    {objectsOf(t, vmText("a", disk)), known, nil},
		"both":     {objectsOf(t, vmText("a", disk)+imageText("debian")), known, nil},
		"missing":  {objectsOf(t, vmText("a", disk)), nil, []string{`spec.disks[0].image: no image is named "debian"; declare it in the same set, as an object of kind Image`}},
		"typo":     {objectsOf(t, vmText("a", disk)+imageText("debain")), nil, []string{`spec.disks[0].image: no image is named "debian"; did you mean "debain"?`}},
		// A machine that runs beside the set is past helping.
		"of another": {objectsOf(t, vmText("a", "serial: {}")), objectsOf(t, vmText("b", disk)), nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, e := range Admit(tt.objects, tt.others, HostFacts{}) {
				_, text, _ := strings.Cut(e.Error(), ": ")
				got = append(got, text)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestNewObject_image_hasKeyAndDigest(t *testing.T) {
	o, err := NewObject(&Image{Metadata: Metadata{Name: "debian"}, Spec: ImageSpec{Source: "/a", Format: FormatRaw}})
	if err != nil || o.Key() != (ObjectKey{KindImage, "debian"}) || o.Key().String() != "img/debian" || o.Digest == "" {
		t.Errorf("got %+v, %v", o, err)
	}
}
