package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/util/jsonpath"

	"github.com/maqet/maqet/manifest"
)

// format is how a command writes its answer.
type format struct {
	// kind is "", wide, json, yaml, name or jsonpath.
	kind string
	// template is the template of jsonpath.
	template string
}

// outputFlag is -o with the formats a command allows.
type outputFlag struct {
	value   string
	allowed []string
}

func (o *outputFlag) add(cmd *cobra.Command, allowed ...string) {
	o.allowed = allowed
	cmd.Flags().StringVarP(&o.value, "output", "o", "", "output `FORMAT`: "+strings.Join(allowed, ", "))
	mustRegister(cmd, "output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return allowed, cobra.ShellCompDirectiveNoFileComp
	})
}

func (o *outputFlag) format() (format, error) {
	if o.value == "" {
		return format{}, nil
	}
	kind, template, hasTemplate := strings.Cut(o.value, "=")
	for _, a := range o.allowed {
		name, _, wantsTemplate := strings.Cut(a, "=")
		if name != kind {
			continue
		}
		if wantsTemplate != hasTemplate {
			break
		}
		return format{kind: kind, template: template}, nil
	}
	return format{}, usagef("-o %s: not a format of this command; the formats are %s", o.value, strings.Join(o.allowed, ", "))
}

// structured tells whether the answer is for programs.
func (f format) structured() bool {
	return f.kind == "json" || f.kind == "yaml" || f.kind == "jsonpath"
}

// write writes v as json, yaml or through a jsonpath template.
func (f format) write(out io.Writer, v any) error {
	switch f.kind {
	case "json":
		return writeJSON(out, v)
	case "yaml":
		b, err := manifest.MarshalYAML(v)
		if err != nil {
			return fmt.Errorf("write yaml: %w", err)
		}
		_, err = out.Write(b)
		return err
	case "jsonpath":
		return writeJSONPath(out, f.template, v)
	default:
		return fmt.Errorf("format %q cannot write objects", f.kind)
	}
}

func writeJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// writeJSONPath runs a kubectl-style template over v's JSON form.
func writeJSONPath(out io.Writer, template string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write json: %w", err)
	}
	var plain any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&plain); err != nil {
		return fmt.Errorf("read json back: %w", err)
	}
	if !strings.Contains(template, "{") {
		template = "{" + template + "}"
	}
	// A key that is not there prints nothing, as in kubectl: a stopped machine has no pid.
	jp := jsonpath.New("output").AllowMissingKeys(true)
	if err := jp.Parse(template); err != nil {
		return usagef("-o jsonpath=%s: %w", template, err)
	}
	if err := jp.Execute(out, plain); err != nil {
		return usagef("-o jsonpath=%s: %w", template, err)
	}
	_, err = fmt.Fprintln(out)
	return err
}

// mustRegister registers a completion; the flag is always there, so an error
// is a programming mistake.
func mustRegister(cmd *cobra.Command, flag string, fn cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, fn); err != nil {
		panic(err)
	}
}
