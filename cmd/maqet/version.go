package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker (-X main.version=...); without it the build
// info of the module says what is known.
var version string

// versionInfo is what `maqet version -o json` prints.
type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersion(a *app) *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print maqet's version",
		Example: "  maqet version\n  maqet version -o json",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			f, err := out.format()
			if err != nil {
				return err
			}
			info := readVersion()
			if f.structured() {
				return f.write(a.env.out, info)
			}
			fmt.Fprintf(a.env.out, "maqet %s (%s, %s)\n", info.Version, info.Go, info.Platform)
			return nil
		},
	}
	out.add(cmd, "json", "yaml")
	return cmd
}

func readVersion() versionInfo {
	info := versionInfo{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return info
	}
	if info.Version == "" {
		info.Version = build.Main.Version
	}
	for _, s := range build.Settings {
		if s.Key == "vcs.revision" {
			info.Revision = s.Value
		}
	}
	return info
}
