package keyboard

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// DefaultLayout is the layout of keyboards in the United States.
const DefaultLayout = "en-us"

// ErrNoLayout is of a layout that QEMU has no keymap of.
var ErrNoLayout = errors.New("QEMU has no keymap of that name")

// The modifiers by their numbers.
const (
	keyShift = 0x2a
	keyAltGr = 0xb8
	keyEnter = 0x1c
	keyTab   = 0x0f
	keySpace = 0x39
)

// Layout says which keys make which characters.
type Layout struct {
	// Name is that of the keymap file.
	Name string
	keys map[rune]Stroke
	// dead are the keys that change the letter after them, by the combining character.
	dead map[rune]Stroke
}

// layoutName is what the file of a keymap may be called.
var layoutName = regexp.MustCompile(`^[a-z]{2,8}(-[a-z]{2,8})?$`)

// layoutAlias is the name of the file of a layout that has other names, too.
func layoutAlias(name string) string {
	switch name {
	case "gb", "uk":
		return "en-gb"
	case "us":
		return DefaultLayout
	default:
		return name
	}
}

// ReadLayout reads a keymap from the first of QEMU's data folders that has it. The error
// is ErrNoLayout when none has.
func ReadLayout(folders []string, name string) (*Layout, error) {
	file := layoutAlias(name)
	if !layoutName.MatchString(file) {
		return nil, fmt.Errorf("layout %q: %w", name, ErrNoLayout)
	}
	for _, dir := range folders {
		text, err := os.ReadFile(filepath.Join(dir, "keymaps", file)) //nolint:gosec // G304: the name has letters only
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("layout %s: %w", name, err)
		}
		return parseLayout(file, text)
	}
	return nil, fmt.Errorf("layout %s: %w", name, ErrNoLayout)
}

// Layouts are the names of the keymaps in QEMU's data folders, sorted.
func Layouts(folders []string) []string {
	var names []string
	for _, dir := range folders {
		entries, err := os.ReadDir(filepath.Join(dir, "keymaps"))
		if err != nil {
			continue // not every data folder has any
		}
		for _, e := range entries {
			if layoutName.MatchString(e.Name()) {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// parseLayout reads a keymap: lines of a character's name, the number of a key and what
// is held with it.
func parseLayout(name string, text []byte) (*Layout, error) {
	l := &Layout{Name: name, keys: map[rune]Stroke{}, dead: map[rune]Stroke{}}
	named := keysyms()
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || strings.HasPrefix(words[0], "#") {
			continue
		}
		number, err := strconv.ParseUint(words[1], 0, 16)
		if err != nil {
			continue // a line such as "map 0x407" is of another kind, or one of a newer format
		}
		stroke, ok := stroke(int(number), words[2:])
		if !ok {
			continue
		}
		if r, ok := keysym(words[0], named); ok {
			keep(l.keys, r, stroke)
		} else if r, ok := deadKey(words[0]); ok {
			keep(l.dead, r, stroke)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("layout %s: %w", name, err)
	}
	if len(l.keys) == 0 {
		return nil, fmt.Errorf("layout %s: its keymap names no character", name)
	}
	for r, number := range map[rune]int{'\n': keyEnter, '\t': keyTab, ' ': keySpace} {
		l.keys[r] = Stroke{{Number: number}}
	}
	return l, nil
}

// stroke is a key with what is held meanwhile. Those that depend on a lock of the
// keyboard, whose state nobody knows, are none.
func stroke(number int, held []string) (Stroke, bool) {
	var keys Stroke
	for _, word := range held {
		switch word {
		case "shift":
			keys = append(keys, Key{Number: keyShift})
		case "altgr":
			keys = append(keys, Key{Number: keyAltGr})
		default:
			return nil, false
		}
	}
	return append(keys, Key{Number: number}), true
}

// keep remembers the easiest way, and of those the first.
func keep(all map[rune]Stroke, r rune, s Stroke) {
	if old, ok := all[r]; !ok || effort(s) < effort(old) {
		all[r] = s
	}
}

// effort puts what every system's layouts have before what is X's own: on a British
// keyboard @ is on its key with Shift everywhere, and with AltGr on Q only there.
func effort(s Stroke) int {
	n := 2 * len(s)
	if slices.Contains(s, Key{Number: keyAltGr}) {
		n++
	}
	return n
}

// deadKey is the combining character of a key that changes the letter after it.
func deadKey(name string) (rune, bool) {
	accent, ok := strings.CutPrefix(name, "dead_")
	if !ok {
		return 0, false
	}
	r, ok := map[string]rune{
		"grave": 0x300, "acute": 0x301, "circumflex": 0x302, "tilde": 0x303, "macron": 0x304, "breve": 0x306,
		"abovedot": 0x307, "diaeresis": 0x308, "abovering": 0x30a, "doubleacute": 0x30b, "caron": 0x30c,
		"cedilla": 0x327, "ogonek": 0x328,
	}[accent]
	return r, ok
}

// alone is the combining character of one that stands by itself; a dead key makes it
// with a space.
func alone(r rune) rune {
	return map[rune]rune{'`': 0x300, '´': 0x301, '^': 0x302, '~': 0x303, '¯': 0x304, '¨': 0x308, '¸': 0x327}[r]
}

// UntypableError tells which characters of a text a layout does not have.
type UntypableError struct {
	Layout string
	// Runes are those characters, each once, in the order of the text.
	Runes []rune
}

func (e *UntypableError) Error() string {
	shown := make([]string, len(e.Runes))
	for i, r := range e.Runes {
		shown[i] = fmt.Sprintf("%q (U+%04X)", r, r)
	}
	return fmt.Sprintf("the layout %s cannot type %s", e.Layout, strings.Join(shown, ", "))
}

// Strokes says what is pressed for a text, one entry for each of its characters. An end
// of line is Enter. The error is an *UntypableError.
func (l *Layout) Strokes(text string) ([][]Stroke, error) {
	var all [][]Stroke
	failed := &UntypableError{Layout: l.Name}
	for _, r := range norm.NFC.String(strings.ReplaceAll(text, "\r\n", "\n")) {
		strokes, ok := l.character(r)
		if !ok && !slices.Contains(failed.Runes, r) {
			failed.Runes = append(failed.Runes, r)
		}
		all = append(all, strokes)
	}
	if len(failed.Runes) > 0 {
		return nil, failed
	}
	return all, nil
}

// character is what is pressed for one character: a key, or a dead key and another.
func (l *Layout) character(r rune) ([]Stroke, bool) {
	if s, ok := l.keys[r]; ok {
		return []Stroke{s}, true
	}
	accent, base := alone(r), ' '
	if accent == 0 {
		parts := []rune(norm.NFD.String(string(r)))
		if len(parts) != 2 {
			return nil, false
		}
		base, accent = parts[0], parts[1]
	}
	dead, hasDead := l.dead[accent]
	letter, hasLetter := l.keys[base]
	return []Stroke{dead, letter}, hasDead && hasLetter
}
