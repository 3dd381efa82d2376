package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/slipway-build/slipway/ci/github"
	"github.com/slipway-build/slipway/ci/plain"
	"github.com/slipway-build/slipway/engine/sandbox/runc"
	"github.com/slipway-build/slipway/step"
)

func runBuild(ctx context.Context, env environment, fs *pflag.FlagSet, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return usageError("build", "build takes one argument, the build context: slipway build .")
	}
	flags := values(fs)
	flags[""] = args
	e := stepEnv(env)
	if onGitHub(env) {
		e.Dialect = github.Dialect{Lookup: env.lookup, LogOnly: true}
	}
	return explainUsage("build", step.Run(ctx, step.FromFlags(flags), e))
}

// runStep does what a pipeline's inputs ask for.
func runStep(ctx context.Context, env environment, _ *pflag.FlagSet, _ []string) error {
	e := stepEnv(env)
	if onGitHub(env) {
		e.Dialect = github.Dialect{Lookup: env.lookup}
	}
	return explainUsage("step", step.Run(ctx, step.FromDialect(e.Dialect), e))
}

// onGitHub reports whether this runs in GitHub Actions or in what follows its
// conventions.
func onGitHub(env environment) bool {
	actions, _ := env.lookup("GITHUB_ACTIONS")
	output, _ := env.lookup("GITHUB_OUTPUT")
	return actions == "true" || output != ""
}

func stepEnv(env environment) step.Env {
	noColor, _ := env.lookup("NO_COLOR")
	e := step.Env{
		Lookup: env.lookup, Stdin: env.stdin, Log: env.stderr, Stdout: env.stdout, Piped: env.piped,
		Size: env.size, Color: env.size != nil && noColor == "",
		Dialect: plain.Dialect{Lookup: env.lookup},
		Root:    env.root,
		Executor: func(dir string) (step.Executor, error) {
			x, err := runc.New(runc.Options{Root: dir})
			if err != nil {
				return nil, err
			}
			return x, nil
		},
	}
	return e
}
