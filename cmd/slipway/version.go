package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/pflag"
)

func printVersion(_ context.Context, env environment, _ *pflag.FlagSet, _ []string) error {
	_, err := fmt.Fprintln(env.stdout, version())
	return err
}

// version says what this binary was built from, as far as Go stamped it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return fmt.Sprintf("slipway (devel) %s %s/%s", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	}
	parts := []string{"slipway", info.Main.Version}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			parts = append(parts, s.Value[:min(12, len(s.Value))])
		case s.Key == "vcs.modified" && s.Value == "true":
			parts = append(parts, "(modified)")
		}
	}
	return strings.Join(append(parts, info.GoVersion, runtime.GOOS+"/"+runtime.GOARCH), " ")
}
