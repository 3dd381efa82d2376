package dockerfile_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/linter"

	"github.com/slipway-build/slipway/engine/dockerfile"
)

// J: every rule of the reference has a Dockerfile that breaks it, at the line
// that ends in "# <-", and one that is like it and does not.
func TestJ_LintRules(t *testing.T) {
	const from = "FROM debian:12\n"
	tests := []struct {
		rule, bad, good string
		args            []string
	}{
		{"StageNameCasing", "FROM debian:12 AS Build\n# <-", "FROM debian:12 AS build", nil},
		{"FromAsCasing", "FROM debian:12 as build\n# <-", "from debian:12 as build", nil},
		{"NoEmptyContinuation", from + "RUN a \\\n\nb\n# <-", from + "RUN a \\\n# c\nb", nil},
		{"ConsistentInstructionCasing", from + "RUN a\nrun b\n# <-", "from debian:12\nrun b", nil},
		{"DuplicateStageName", "FROM x AS a\nFROM y AS a\n# <-", "FROM x AS a\nFROM y AS b", nil},
		{"ReservedStageName", "FROM x AS scratch\n# <-", "FROM x AS scratches", nil},
		{"JSONArgsRecommended", from + "CMD a\n# <-", from + "SHELL [\"a\"]\nCMD a", nil},
		{"MaintainerDeprecated", from + "MAINTAINER a\n# <-", from + "LABEL maintainer=a", nil},
		{"UndefinedArgInFrom", "ARG B=x\nFROM debian$C\n# <-", "ARG C\nFROM debian$C", nil},
		{"WorkdirRelativePath", from + "WORKDIR a\n# <-", from + "WORKDIR /a\nWORKDIR b", nil},
		{"UndefinedVar", from + "ENV A=1\nLABEL a=$B\n# <-", from + "ENV B=1\nLABEL a=$B", nil},
		{"MultipleInstructionsDisallowed", from + "CMD [\"a\"]\n# <-\nCMD [\"b\"]", "FROM x AS y\nCMD [\"a\"]\nFROM y\nCMD [\"b\"]", nil},
		{"LegacyKeyValueFormat", from + "ENV a b\n# <-", from + "ENV a=b", nil},
		{"InvalidBaseImagePlatform", "FROM only-arm64\n# <-", "FROM --platform=$X only-arm64", []string{"--build-arg=Y=1"}},
		{"RedundantTargetPlatform", "FROM --platform=$TARGETPLATFORM debian\n# <-", "FROM --platform=$BUILDPLATFORM debian", nil},
		{"SecretsUsedInArgOrEnv", from + "ARG NPM_TOKEN\n# <-", from + "ARG TOKEN_FILE PUBLIC_KEY KEYS TOKENS", nil},
		{"InvalidDefaultArgInFrom", "ARG TAG\nFROM debian:$TAG\n# <-", "ARG TAG=1\nFROM debian:$TAG", []string{"--build-arg=TAG=2"}},
		{"FromPlatformFlagConstDisallowed", "FROM --platform=linux/amd64 debian\n# <-", "FROM --platform=linux/amd64 debian AS amd64", nil},
		{"CopyIgnoredFile", from + "COPY a/b /\n# <-", from + "COPY b /", []string{"--ignore=a"}},
		{"InvalidDefinitionDescription", "# check=experimental=all\n# what it is\nFROM debian AS x\n# <-", "# check=experimental=all\n# x what it is\nFROM debian AS x", nil},
		{"ExposeProtoCasing", from + "EXPOSE 80/TCP\n# <-", from + "EXPOSE 80/tcp", nil},
		{"ExposeInvalidFormat", from + "EXPOSE 80:80\n# <-", from + "EXPOSE 80-81", nil},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			// The mark stands on the line after the one that it is about.
			line := strings.Count(tt.bad[:strings.Index(tt.bad, "# <-")], "\n")
			p, err := plan(t, tt.bad, tt.args...)
			if err != nil {
				t.Fatal(err)
			}
			is := func(w dockerfile.Warning) bool { return w.Rule == tt.rule }
			if n := slices.IndexFunc(p.Warnings, is); n < 0 {
				t.Errorf("no warning, but %v", p.Warnings)
			} else if p.Warnings[n].Line != line {
				t.Errorf("warning at line %d, want %d", p.Warnings[n].Line, line)
			}
			if skipped, err := plan(t, tt.bad, append(tt.args, "--build-arg=BUILDKIT_DOCKERFILE_CHECK=skip="+tt.rule)...); err != nil {
				t.Error(err)
			} else if slices.ContainsFunc(skipped.Warnings, is) {
				t.Error("warning although the rule is skipped")
			}
			if _, err := plan(t, tt.bad, append(tt.args, "--build-arg=BUILDKIT_DOCKERFILE_CHECK=error=true;experimental=all")...); err == nil || !strings.Contains(err.Error(), tt.rule) {
				t.Errorf("error with check=error=true: %v", err)
			}
			if tt.rule == "InvalidBaseImagePlatform" {
				return // see TestGolden/d05_platform
			}
			if p, err = plan(t, tt.good, tt.args...); err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(p.Warnings, is) {
				t.Errorf("needless warning: %v", p.Warnings)
			}
		})
	}
}

// A comment above an instruction sets the rules for that one.
func TestJ_CommentSkipsRule(t *testing.T) {
	p, err := plan(t, "FROM debian:12\n# check=skip=LegacyKeyValueFormat\nENV a b\nENV c d")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Warnings) != 1 || p.Warnings[0].Line != 4 || p.Warnings[0].URL != linter.RuleLegacyKeyValueFormat.URL {
		t.Errorf("warnings are %v, want one at line 4", p.Warnings)
	}
}

// Rules speak once, not once per platform, and not about stages that are not
// built, as far as that takes planning them.
func TestJ_WarningsOnce(t *testing.T) {
	p, err := plan(t, "FROM debian:12 AS unused\nENV a b\nFROM debian:12\nENV c d", "--platform=linux/amd64,linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Warnings) != 1 || p.Warnings[0].Line != 4 {
		t.Errorf("warnings are %v, want one at line 4", p.Warnings)
	}
}

func TestJ_CopyIgnoredFile(t *testing.T) {
	tests := []struct {
		copy   string
		ignore []string
		want   bool
	}{
		{"COPY a /", []string{"a"}, true},
		{"ADD a/b/c /", []string{"a"}, true},
		{"COPY . /", []string{"a"}, false},
		{"COPY . /", []string{"*"}, true},
		{"COPY a /", []string{"*", "!b"}, false}, // not told apart without looking
		{"COPY --from=busybox a /", []string{"a"}, false},
		{"COPY ./x/../a/ /", []string{"a"}, true},
	}
	for _, tt := range tests {
		var args []string
		for _, p := range tt.ignore {
			args = append(args, "--ignore="+p)
		}
		p, err := plan(t, "FROM debian:12\n"+tt.copy, args...)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(p.Warnings) > 0; got != tt.want {
			t.Errorf("%s with %v ignored: warnings %v", tt.copy, tt.ignore, p.Warnings)
		}
	}
}
