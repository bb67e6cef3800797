package main

import (
	"github.com/google/jsonschema-go/jsonschema"
	"github.com/spf13/cobra"

	"github.com/maqet/maqet/manifest"
)

func newSchema(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "schema [KIND]",
		Short: "Print the JSON Schema of manifests, for editors",
		Long: `Print the JSON Schema (draft 2020-12) of a kind of manifest, or of all kinds. Editors
check and complete manifests by it, and show what each field means.

It refuses nothing that maqet takes. maqet validate finds more: what depends on other
keys or objects, sizes that QEMU would round, and what YAML readers disagree about.`,
		Example:   "  maqet schema > maqet.schema.json   # then begin a manifest with:\n  # yaml-language-server: $schema=maqet.schema.json\n  maqet schema img",
		ValidArgs: []string{"vm", "snap", "img"},
		Args:      oneKind,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				s, err := manifest.Schema(kindOf(args[0]))
				if err != nil {
					return err
				}
				return writeJSON(a.env.out, s)
			}
			all := &jsonschema.Schema{Schema: manifest.SchemaDialect, Title: "maqet manifests"}
			for _, kind := range manifest.Kinds() {
				s, err := manifest.Schema(kind)
				if err != nil {
					return err
				}
				s.Schema = ""
				all.OneOf = append(all.OneOf, s)
			}
			return writeJSON(a.env.out, all)
		},
	}
}

// oneKind takes a kind, or nothing.
func oneKind(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) > 1:
		return usagef("%s got one argument too many: %q", cmd.CommandPath(), args[1])
	case len(args) == 1 && kindOf(args[0]) == "":
		return usagef("%q: unknown kind; the kinds are vm, snap and img", args[0])
	default:
		return nil
	}
}
