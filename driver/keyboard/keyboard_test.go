package keyboard

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// data is where QEMU's keymaps lie on hosts that these tests run on.
var data = []string{"/nowhere", "/usr/share/qemu"}

func layout(t *testing.T, name string) *Layout {
	t.Helper()
	l, err := ReadLayout(data, name)
	if errors.Is(err, ErrNoLayout) {
		t.Skipf("QEMU's keymaps are not installed: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func numbers(strokes [][]Stroke) string {
	text, err := json.Marshal(strokes)
	if err != nil {
		return err.Error()
	}
	return strings.NewReplacer(`{"type":"number","data":`, "", "}", "").Replace(string(text))
}

func TestLayout_ofQEMU_pressesTheRightKeys(t *testing.T) {
	for _, tc := range []struct{ layout, text, want string }{
		{"en-us", "aZ", "[[[30]],[[42,44]]]"},
		{"us", "~ \n\t", "[[[42,41]],[[57]],[[28]],[[15]]]"},
		{"en-us", "a\r\nb", "[[[30]],[[28]],[[48]]]"},
		{"de", "zy", "[[[21]],[[44]]]"},
		{"de", "@€ß", "[[[184,16]],[[184,18]],[[12]]]"},
		{"de", "u\u0308", "[[[26]]]"}, // the letter and its dots apart
		{"fr", "aq1é", "[[[16]],[[30]],[[42,2]],[[3]]]"},
		{"en-gb", "@\"£", "[[[42,40]],[[42,3]],[[42,4]]]"},
		{"gb", "#", "[[[43]]]"},
		{"es", "ñ~", "[[[39]],[[184,5]]]"},
		{"es", "áÄ^", "[[[40],[30]],[[42,40],[42,30]],[[42,26],[57]]]"}, // by dead keys
	} {
		strokes, err := layout(t, tc.layout).Strokes(tc.text)
		if err != nil {
			t.Errorf("%s on %s: %v", tc.text, tc.layout, err)
		} else if got := numbers(strokes); got != tc.want {
			t.Errorf("%q on %s presses %s, want %s", tc.text, tc.layout, got, tc.want)
		}
	}
}

// TestLayout_eachOfPrintableASCII_isOnEachLayout is about what passwords and shells need.
func TestLayout_eachOfPrintableASCII_isOnEachLayout(t *testing.T) {
	var all strings.Builder
	for r := ' '; r < 0x7f; r++ {
		all.WriteRune(r)
	}
	for _, name := range []string{"en-us", "en-gb", "de", "fr", "es"} {
		if _, err := layout(t, name).Strokes(all.String()); err != nil {
			t.Error(err)
		}
	}
}

func TestLayout_whatItDoesNotHave_isNamedOnce(t *testing.T) {
	_, err := layout(t, "us").Strokes("aéb€é\a")
	var untypable *UntypableError
	if !errors.As(err, &untypable) || !slices.Equal(untypable.Runes, []rune{'é', '€', '\a'}) {
		t.Errorf("the error is %v", err)
	}
}

func TestReadLayout_namesAndFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "keymaps"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"xx":     "# comment\nmap 0x407\na 0x10\nA 0x10 shift\nb 0x11 numlock\nb 0x12 shift\nb 0x13\nU20AC 0x14\nUXXXX 0x15\nbroken\nc zero\n",
		"nobody": "# nothing\n",
		"README": "a 0x10\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, "keymaps", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	folders := []string{filepath.Join(dir, "none"), dir}
	l, err := ReadLayout(folders, "xx")
	if err != nil {
		t.Fatal(err)
	}
	strokes, err := l.Strokes("abA€")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := numbers(strokes), "[[[16]],[[19]],[[42,16]],[[20]]]"; got != want {
		t.Errorf("presses %s, want %s", got, want)
	}
	if got := Layouts(folders); !slices.Equal(got, []string{"nobody", "xx"}) {
		t.Errorf("the layouts are %q", got)
	}
	for _, name := range []string{"", "yy", "../keymaps/xx", "README", "xx/../xx"} {
		if _, err := ReadLayout(folders, name); !errors.Is(err, ErrNoLayout) {
			t.Errorf("layout %q: %v", name, err)
		}
	}
	if _, err := ReadLayout(folders, "nobody"); err == nil || errors.Is(err, ErrNoLayout) {
		t.Errorf("a keymap without characters: %v", err)
	}
}

func TestParseChord_namesOfQEMUAndOfPeople(t *testing.T) {
	for _, tc := range []struct {
		chord string
		want  []string
	}{
		{"ctrl-alt-delete", []string{"ctrl", "alt", "delete"}},
		{"Ctrl+Alt+Del", []string{"ctrl", "alt", "delete"}},
		{"control-alt-f2", []string{"ctrl", "alt", "f2"}},
		{"super", []string{"meta_l"}},
		{"ret", []string{"ret"}},
		{"shift_r-a", []string{"shift_r", "a"}},
		{"minus", []string{"minus"}},
	} {
		keys, err := ParseChord(tc.chord)
		var got []string
		for _, k := range keys {
			got = append(got, k.Code)
		}
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s is %q, %v; want %q", tc.chord, got, err, tc.want)
		}
	}
	for chord, near := range map[string]string{"ctrl-alt-delet": "delete", "-": "minus", "": "", "ctrl-xyzzy": "", "entr": "enter"} {
		_, err := ParseChord(chord)
		var unknown *UnknownKeyError
		if !errors.As(err, &unknown) || unknown.Near != near {
			t.Errorf("%q: %v, want one near %q", chord, err, near)
		}
	}
	if _, err := ParseChord("a-b-A"); err == nil {
		t.Error("a key twice is accepted")
	}
}

func TestCodes_areNamedOnce_andAliasesLeadToThem(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range Codes() {
		if seen[name] {
			t.Errorf("%s is there twice", name)
		}
		seen[name] = true
		if c, ok := code(name); !ok || !slices.Contains(strings.Fields(codes), c) {
			t.Errorf("%s leads to %q, which is no key of QEMU's", name, c)
		}
	}
}
