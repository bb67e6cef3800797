package timing

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/agext/levenshtein"
)

// Error is a setting of the table that cannot be used.
type Error struct {
	// Setting is the part of the flag at fault, such as "lok=5s".
	Setting string
	// Err is the cause.
	Err error
	// Hint is what to write instead.
	Hint string
}

// Error is "timeouts: "lok=5s": cause; hint".
func (e *Error) Error() string {
	return fmt.Sprintf("timeouts: %q: %v; %s", e.Setting, e.Err, e.Hint)
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// The causes of an Error.
var (
	ErrSyntax  = errors.New("not of the form NAME=DURATION")
	ErrUnknown = errors.New("unknown name")
	ErrTwice   = errors.New("given twice")
	ErrValue   = errors.New("not a duration greater than zero")
)

// Entry is one duration of a table.
type Entry struct {
	Name  string
	Value time.Duration
}

// All are the table's durations, sorted by name.
func (t *Table) All() []Entry {
	table := reflect.TypeFor[Table]()
	all := make([]Entry, 0, table.NumField())
	for f := range table.Fields() {
		name := f.Tag.Get("flag")
		if d, ok := t.field(name); ok {
			all = append(all, Entry{Name: name, Value: *d})
		}
	}
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Names are the names of all durations, sorted.
func Names() []string {
	var table Table
	names := make([]string, 0, reflect.TypeFor[Table]().NumField())
	for _, e := range table.All() {
		names = append(names, e.Name)
	}
	return names
}

// Set changes the durations that spec names, such as "lock=5s,query=10s". When
// a part of it is wrong, nothing is changed.
func (t *Table) Set(spec string) error {
	if strings.TrimSpace(spec) == "" {
		return nil
	}
	changed := *t
	seen := map[string]bool{}
	for setting := range strings.SplitSeq(spec, ",") {
		setting = strings.TrimSpace(setting)
		name, value, ok := strings.Cut(setting, "=")
		if !ok {
			return &Error{Setting: setting, Err: ErrSyntax, Hint: `write, for example, "lock=5s,query=10s"`}
		}
		if seen[name] {
			return &Error{Setting: setting, Err: ErrTwice, Hint: "give each name once"}
		}
		seen[name] = true
		field, ok := changed.field(name)
		if !ok {
			return &Error{Setting: setting, Err: ErrUnknown, Hint: suggestion(name)}
		}
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			return &Error{Setting: setting, Err: ErrValue, Hint: `write a number with a unit, such as 500ms, 30s or 5m`}
		}
		*field = d
	}
	*t = changed
	return nil
}

// field is the duration of that name.
func (t *Table) field(name string) (*time.Duration, bool) {
	table := reflect.ValueOf(t).Elem()
	for i := range table.NumField() {
		if table.Type().Field(i).Tag.Get("flag") == name {
			return reflect.TypeAssert[*time.Duration](table.Field(i).Addr())
		}
	}
	return nil, false
}

// suggestion names the nearest name, or all when none is near.
func suggestion(name string) string {
	best, distance := "", 1+max(1, len(name)/3)
	for _, known := range Names() {
		if d := levenshtein.Distance(strings.ToLower(name), known, nil); d < distance {
			best, distance = known, d
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "the names are " + strings.Join(Names(), ", ")
}
