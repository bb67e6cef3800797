package main

import (
	"bytes"
	"errors"
	"testing"
)

func TestOutputFlag_format_isOneOfThoseAllowed(t *testing.T) {
	allowed := []string{"wide", "json", "jsonpath=TEMPLATE"}
	tests := map[string]struct {
		value string
		want  format
		bad   bool
	}{
		"none":                {"", format{}, false},
		"json":                {"json", format{kind: "json"}, false},
		"template":            {"jsonpath={.a}=b", format{kind: "jsonpath", template: "{.a}=b"}, false},
		"no template":         {"jsonpath", format{}, true},
		"template of nothing": {"json={.a}", format{}, true},
		"not allowed":         {"yaml", format{}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := (&outputFlag{value: tt.value, allowed: allowed}).format()
			if got != tt.want || errors.As(err, new(*usageError)) != tt.bad {
				t.Errorf("got %+v, error %v", got, err)
			}
		})
	}
}

func TestFormatWrite_eachKind_writesTheSameObject(t *testing.T) {
	object := map[string]any{"name": "a<b>", "size": uint64(18446744073709551615), "list": []int{1, 2}}
	tests := map[string]struct {
		format format
		want   string
	}{
		"json":             {format{kind: "json"}, "{\n  \"list\": [\n    1,\n    2\n  ],\n  \"name\": \"a<b>\",\n  \"size\": 18446744073709551615\n}\n"},
		"yaml":             {format{kind: "yaml"}, "list:\n- 1\n- 2\nname: a<b>\nsize: 18446744073709551615\n"},
		"jsonpath":         {format{kind: "jsonpath", template: "{.name} {.list[*]}"}, "a<b> 1 2\n"},
		"without braces":   {format{kind: "jsonpath", template: ".name"}, "a<b>\n"},
		"key not there":    {format{kind: "jsonpath", template: "{.pid}{.name}"}, "a<b>\n"},
		"number in full":   {format{kind: "jsonpath", template: "{.size}"}, "18446744073709551615\n"},
		"range over lists": {format{kind: "jsonpath", template: `{range .list[*]}{@}{"\n"}{end}`}, "1\n2\n\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := tt.format.write(&out, object); err != nil {
				t.Fatal(err)
			}
			if out.String() != tt.want {
				t.Errorf("got %q, want %q", out.String(), tt.want)
			}
		})
	}
}

func TestFormatWrite_badTemplate_isTheCallersFault(t *testing.T) {
	for _, template := range []string{"{.a", "{nonsense}"} {
		err := format{kind: "jsonpath", template: template}.write(&bytes.Buffer{}, map[string]any{"a": 1})
		if !errors.As(err, new(*usageError)) {
			t.Errorf("%s: error %v", template, err)
		}
	}
}
