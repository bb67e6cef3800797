package qemu

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestObject_anyText_isReadBackTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		word, err := object{{"driver", "x"}, {"text", text}, {"n", int64(1)}, {"b", false}}.encode()
		if checkText(text) != nil {
			if err == nil {
				t.Fatalf("%q was not refused: %s", text, word)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal([]byte(word), &got); err != nil {
			t.Fatalf("%s: %v", word, err)
		}
		if diff := cmp.Diff(map[string]any{"driver": "x", "text": text, "n": 1.0, "b": false}, got); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", word, diff)
		}
	})
}

func TestObject_order_isKept(t *testing.T) {
	word, err := object{{"z", "<&>"}, {"a", []hostForward{{"tcp::1-:2"}}}, {"m", 1.5}}.encode()
	if want := `{"z":"<&>","a":[{"str":"tcp::1-:2"}],"m":1.5}`; err != nil || word != want {
		t.Errorf("%s, %v; want %s", word, err, want)
	}
}

func TestCheckText_whatQEMUWouldNotRead_isRefused(t *testing.T) {
	for _, text := range []string{"a\x00", "\xff", "\ufdd0", "\ufffe", "\U0001ffff"} {
		if checkText(text) == nil {
			t.Errorf("%q was not refused", text)
		}
	}
	for _, text := range []string{"", "a,b", "\n\t\x7f", "\ufffd", "漢🙂"} {
		if err := checkText(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}
