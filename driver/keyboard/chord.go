package keyboard

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// Key is one key of a keyboard: by QEMU's name for it, or by its number in the set that
// QEMU's keymaps use. The zero value is no key.
type Key struct {
	// Code is a QKeyCode, such as "ctrl"; empty for a key by its number.
	Code string
	// Number is a key's number, such as 0x1e for the one right of Caps Lock.
	Number int
}

// MarshalJSON writes QMP's KeyValue.
func (k Key) MarshalJSON() ([]byte, error) {
	type value struct {
		Type string `json:"type"`
		Data any    `json:"data"`
	}
	if k.Code != "" {
		return json.Marshal(value{"qcode", k.Code})
	}
	return json.Marshal(value{"number", k.Number})
}

// Stroke is keys that are down together, in the order in which they go down.
type Stroke []Key

// codes are QEMU's names of keys (QKeyCode).
const codes = `shift shift_r alt alt_r ctrl ctrl_r menu esc 1 2 3 4 5 6 7 8 9 0 minus equal backspace tab
q w e r t y u i o p bracket_left bracket_right ret a s d f g h j k l semicolon apostrophe grave_accent backslash
z x c v b n m comma dot slash asterisk spc caps_lock f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 f11 f12
f13 f14 f15 f16 f17 f18 f19 f20 f21 f22 f23 f24 num_lock scroll_lock
kp_divide kp_multiply kp_subtract kp_add kp_enter kp_decimal kp_0 kp_1 kp_2 kp_3 kp_4 kp_5 kp_6 kp_7 kp_8 kp_9 kp_comma kp_equals
sysrq less print home pgup pgdn end left up down right insert delete stop again props undo front copy open paste find cut lf help
meta_l meta_r compose pause ro hiragana henkan yen muhenkan katakanahiragana lang1 lang2 power sleep wake
audionext audioprev audiostop audioplay audiomute volumeup volumedown mediaselect mail calculator computer
ac_home ac_back ac_forward ac_refresh ac_bookmarks`

// aliases are what people call keys, before QEMU's names for them.
const aliases = `control ctrl control_l ctrl ctrl_l ctrl control_r ctrl_r alt_l alt altgr alt_r shift_l shift
super meta_l super_l meta_l super_r meta_r meta meta_l win meta_l windows meta_l cmd meta_l
escape esc enter ret return ret space spc del delete ins insert bksp backspace bs backspace
pageup pgup page_up pgup prior pgup pagedown pgdn page_down pgdn next pgdn
capslock caps_lock numlock num_lock scrolllock scroll_lock printscreen print prtsc print print_screen print
break pause dash minus hyphen minus plus kp_add period dot equals equal grave grave_accent backquote grave_accent
bracketleft bracket_left bracketright bracket_right quote apostrophe arrowleft left arrowright right arrowup up arrowdown down`

// Codes are the names that [ParseChord] knows: QEMU's own, then the aliases.
func Codes() []string {
	names := strings.Fields(codes)
	words := strings.Fields(aliases)
	for i := 0; i < len(words); i += 2 {
		names = append(names, words[i])
	}
	return names
}

// code is QEMU's name of a key.
func code(name string) (string, bool) {
	if slices.Contains(strings.Fields(codes), name) {
		return name, true
	}
	words := strings.Fields(aliases)
	for i := 0; i < len(words); i += 2 {
		if words[i] == name {
			return words[i+1], true
		}
	}
	return "", false
}

// UnknownKeyError is a name that is no key's.
type UnknownKeyError struct {
	// Name is what was asked for, Chord what it is a part of.
	Name, Chord string
	// Near is the name most like it; empty when none is.
	Near string
}

func (e *UnknownKeyError) Error() string {
	text := fmt.Sprintf("%q is no key", e.Name)
	if e.Name != e.Chord {
		text = fmt.Sprintf("%s: %s", e.Chord, text)
	}
	if e.Near != "" {
		text += fmt.Sprintf("; did you mean %s?", e.Near)
	}
	return text
}

// ParseChord reads keys that are pressed together: QEMU's names for them or the usual
// other ones, in any case, with - or + in between. The error is an *UnknownKeyError, or
// tells that a key is named twice.
func ParseChord(chord string) (Stroke, error) {
	var keys Stroke
	for _, word := range strings.FieldsFunc(strings.ToLower(chord), func(r rune) bool { return r == '-' || r == '+' }) {
		c, ok := code(word)
		if !ok {
			return nil, &UnknownKeyError{Name: word, Chord: chord, Near: nearest(word)}
		}
		if slices.Contains(keys, Key{Code: c}) {
			return nil, fmt.Errorf("%s: the key %s is in it twice", chord, c)
		}
		keys = append(keys, Key{Code: c})
	}
	if len(keys) == 0 {
		return nil, &UnknownKeyError{Name: chord, Chord: chord, Near: map[string]string{"-": "minus", "+": "shift-equal or kp_add"}[chord]}
	}
	return keys, nil
}

// nearest is the name most like a word; empty when none is like it.
func nearest(word string) string {
	best, at := 3, ""
	for _, name := range Codes() {
		if d := levenshtein.Distance(word, name, nil); d < best && d < len(word) {
			best, at = d, name
		}
	}
	return at
}
