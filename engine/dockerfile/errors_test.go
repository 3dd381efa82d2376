package dockerfile_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/dockerfile"
	"github.com/slipway-build/slipway/platforms"
)

// Every error of the Dockerfile says what, where and, if there is a remedy, how
// to cure it.
func TestErrorsSayWhereAndHow(t *testing.T) {
	const from = "FROM debian:12\n"
	tests := []struct {
		name, file string
		args       []string
		want       string // part of the message
		line, last int
		hint       string // part of it; empty: none
	}{
		{"A01 directive twice", "# escape=`\n# escape=`\nFROM x", nil, "only one escape parser directive", 2, 2, ""},
		{"A02 no directive after a blank line", "\n# syntax=x/y\nFROM x", nil, "", 0, 0, ""},
		{"A02 other front end", "# escape=`\n# syntax=example.com/front:1\nFROM x", nil, `front end "example.com/front:1" is not supported`, 2, 2, "BUILDKIT_SYNTAX"},
		{"A02 in a JSON object", `{"syntax": "example.com/x"}`, nil, "not supported", 1, 1, "BuildKit"},
		{"A02 after a shebang", "#!/usr/bin/env x\n// syntax=x/y\nFROM x", nil, `"x/y"`, 2, 2, "BuildKit"},
		{"A03 front end by build arg", from, []string{"--build-arg=BUILDKIT_SYNTAX=x/y cmd"}, `front end "x/y"`, 0, 0, "BuildKit"},
		{"A04 escape", "# escape=x\nFROM x", nil, "invalid escape token", 1, 1, ""},
		{"A05 check", "# check=nonsense\nFROM x", nil, "check", 1, 1, ""},
		{"A05 check by build arg", from, []string{"--build-arg=BUILDKIT_DOCKERFILE_CHECK=x=y"}, "check", 0, 0, ""},
		{"A05 warnings are errors", "# check=error=true\nFROM debian:12\nMAINTAINER x\nENV a b", nil, "LegacyKeyValueFormat, MaintainerDeprecated", 3, 3, ""},
		{"A08 empty", " \n\n", nil, "cannot be empty", 1, 1, "FROM"},
		{"A08 only comments", "# a\n# b\n", nil, "no instructions", 2, 2, ""},
		{"A08 long line", from + "RUN x\nRUN " + strings.Repeat("x", 70000), nil, "max allowed size", 3, 3, "Break"},
		{"A08 no stage", "ARG A\nARG B\n", nil, "no stage", 2, 2, "FROM"},
		{"A08 before FROM", "ARG A\nRUN x\nFROM x", nil, "no build stage", 2, 2, "FROM"},
		{"A08 unknown instruction", from + "RUNN make", nil, "unknown instruction: RUNN (did you mean RUN?)", 2, 2, ""},
		{"A09 unknown flag", from + "\nCOPY --form=x \\\n a b", nil, "unknown flag: --form (did you mean from?)", 3, 4, ""},
		{"A09 flag twice", from + "COPY --chown=a --chown=b a b", nil, "duplicate flag", 2, 2, ""},
		{"A09 not a boolean", from + "COPY --link=x a b", nil, "expecting boolean", 2, 2, ""},
		{"A11 unterminated", from + "RUN <<EOF\nx\n", nil, "unterminated heredoc", 2, 3, "alone on a line"},
		{"A11 a path as name", from + "COPY <<a/b /x\nx\na/b\n", nil, "its name is a path", 2, 4, ""},
		{"C01 required", from + `ENV A="${B:?is needed}"`, nil, "is needed", 2, 2, ""},
		{"C01 no end of it", "ARG A=x\n" + strings.Repeat("ARG A=$A$A$A$A\n", 40) + from, nil, "more than 1048576 bytes", 12, 12, ""},
		{"C01 no end of it in a stage", from + "ENV A=x\n" + strings.Repeat("ENV A=$A$A$A$A\n", 40), nil, "more than 1048576 bytes", 13, 13, ""},
		{"C01 no end", from + "ENV A=${B", nil, "B", 2, 2, ""},
		{"C04 no expansion", "ARG X=1\n" + from + "COPY --from=$X a b", nil, "variable expansion is not supported for --from", 3, 3, "FROM"},
		{"D01 empty base", "ARG X\nFROM ${X}", nil, "name of the base image is empty", 2, 2, "--build-arg"},
		{"D01 invalid base", from + "FROM Upper:1", nil, `invalid image name "Upper:1"`, 2, 2, ""},
		{"D01 invalid, unreachable", "FROM a:b:c AS x\nFROM debian", nil, "invalid image name", 1, 1, ""},
		{"D01 missing", "FROM debian:12 AS missin\nFROM missing", nil, "missing: no such image: file does not exist (did you mean missin?)", 2, 2, ""},
		{"D02 stage name", "FROM x AS 1x", nil, "invalid name for build stage", 1, 1, ""},
		{"D02 target", "FROM x AS build\nFROM y AS test", []string{"--target=biuld"}, `target stage "biuld" could not be found (did you mean build?)`, 0, 0, "build, test"},
		{"D02 target without names", "FROM x\nFROM y", []string{"--target=2"}, "could not be found", 0, 0, "0 to 1"},
		{"D02 index", "FROM x\nFROM y\nCOPY --from=2 a b", nil, "invalid stage index 2", 3, 3, "from 0"},
		{"D02 below", "FROM x AS a\nCOPY --from=b a b\nFROM y AS b\nFROM a", nil, `stage "b" is not built before stage "a"`, 2, 2, "Move"},
		{"D02 cycle", "FROM x AS a\nCOPY --from=b a b\nFROM y AS b\nRUN --mount=from=a,target=/x true", nil, "circular dependency", 4, 4, "above"},
		{"D02 itself", "FROM x AS a\nCOPY --from=a a b", nil, "circular dependency detected on stage: a", 2, 2, "above"},
		{"D05 empty platform", "FROM --platform=$TARGETPLATFROM x", nil, "the platform is empty: --platform=$TARGETPLATFROM (did you mean TARGETPLATFORM?)", 1, 1, ""},
		{"D05 platform", "FROM --platform=a/b/c/d x", nil, "parse platform", 1, 1, ""},
		{"E08 label", from + "LABEL", nil, "LABEL", 2, 2, ""},
		{"E10 port", from + "EXPOSE 99999", nil, `invalid port "99999"`, 2, 2, ""},
		{"E10 protocol", from + "EXPOSE 1/x", nil, "unknown protocol", 2, 2, ""},
		{"E10 range", from + "EXPOSE 9-1", nil, "backwards", 2, 2, ""},
		{"E10 ranges", from + "EXPOSE 1-3:5-6", nil, "different lengths", 2, 2, ""},
		{"E10 address", from + "EXPOSE x:1:1", nil, "invalid IP", 2, 2, ""},
		{"E11 empty volume", from + "VOLUME $X", nil, "VOLUME", 2, 2, ""},
		{"E12 negative", from + "USER -5\nWORKDIR /x", nil, "invalid id -5", 3, 3, ""},
		{"E14 shell form", from + "SHELL bash", nil, "SHELL", 2, 2, ""},
		{"E15 signal", from + "STOPSIGNAL SIGNONE", nil, "invalid signal", 2, 2, ""},
		{"E15 zero", from + "STOPSIGNAL 0", nil, "invalid signal", 2, 2, ""},
		{"E15 out of range", from + "STOPSIGNAL RTMIN+16", nil, "invalid signal", 2, 2, ""},
		{"E17 interval", from + "HEALTHCHECK --interval=1us CMD x", nil, "interval", 2, 2, ""},
		{"E17 flags of NONE", from + "HEALTHCHECK --retries=1 NONE x", nil, "", 2, 2, ""},
		{"E18 chained", from + "ONBUILD ONBUILD RUN x", nil, "ONBUILD", 2, 2, ""},
		{"E18 FROM", from + "ONBUILD FROM x", nil, "isn't allowed", 2, 2, ""},
		{"E18 bad trigger of an image", "ARG X\nFROM badtrigger:1", nil, `ONBUILD trigger "RUNN x" of badtrigger:1`, 2, 2, ""},
		{"F01 empty", from + "RUN []", nil, "requires a command", 2, 2, ""},
		{"F01 nothing", from + "RUN", nil, "requires a command", 2, 2, ""},
		{"F02 exec form", from + `RUN ["<<EOF"]`, nil, "", 0, 0, ""},
		{"F03 type", from + "RUN --mount=type=cach,target=/x true", nil, `unsupported mount type "cach" (did you mean cache?)`, 2, 2, ""},
		{"F03 key", from + "RUN --mount=type=cache,tarket=/x true", nil, "did you mean target", 2, 2, ""},
		{"F03 from a variable", from + "RUN --mount=from=$X,target=/x true", nil, "variable expansion", 2, 2, ""},
		{"F04 root", from + "RUN --mount=target=/ true", nil, "invalid mount target", 2, 2, ""},
		{"F05 root", from + "WORKDIR /a\nRUN --mount=type=cache,target=.. true", nil, "invalid mount target", 3, 3, ""},
		{"F05 mode", from + "RUN --mount=type=cache,target=/x,mode=17777 true", nil, "invalid mode", 2, 2, ""},
		{"F06 size", from + "RUN --mount=type=tmpfs,target=/x,size=much true", nil, "size", 2, 2, ""},
		{"F07 nothing", from + "RUN --mount=type=secret true", nil, "secret", 2, 2, ""},
		{"F08 source", from + "RUN --mount=type=ssh,source=/x true", nil, "ssh does not support source", 2, 2, ""},
		{"F09 sharing", from + "RUN --mount=target=/x,sharing=locked true", nil, "sharing", 2, 2, ""},
		{"F11 network", from + "RUN --network=wifi true", nil, "network", 2, 2, ""},
		{"F12 insecure", from + "RUN --security=insecure true", nil, "RUN --security=insecure is not supported", 2, 2, "BuildKit"},
		{"F13 device", from + "RUN --device=x.org/y=z true", nil, "RUN --device is not supported", 2, 2, "BuildKit"},
		{"G01 one argument", from + "COPY a", nil, "at least two arguments", 2, 2, ""},
		{"G01 heredoc as destination", from + "COPY a <<EOF\nEOF", nil, "heredoc", 2, 3, ""},
		{"G05 owner", from + "COPY --chown=-1 a b", nil, "--chown=-1: invalid id", 2, 2, ""},
		{"G06 mode", from + "COPY --chmod=888 a b", nil, "invalid --chmod=888", 2, 2, "octal"},
		{"G06 large mode", from + "COPY --chmod=17777 a b", nil, "invalid --chmod=17777", 2, 2, "octal"},
		{"G06 symbols", from + "COPY --chmod=u=q a b", nil, "invalid --chmod=u=q", 2, 2, "octal"},
		{"G12 URL", from + "ADD https://example.com/x.tar /", nil, "ADD of a URL is not supported in this version", 2, 2, "BuildKit"},
		{"G13 git", from + "ADD https://example.com/x.git#main /", nil, "ADD of a git repository is not supported", 2, 2, "BuildKit"},
		{"G13 git over ssh", from + "ADD git@example.com:x/y /", nil, "ADD of a git repository is not supported", 2, 2, "BuildKit"},
		{"G14 checksum", from + "ADD --checksum=sha256:00 a /", nil, "--checksum requires", 2, 2, ""},
		{"G15 URL", from + "COPY http://example.com/x /", nil, "source can't be a URL for COPY", 2, 2, "ADD"},
		{"G15 git", from + "COPY git@example.com:x/y /", nil, "git ref", 2, 2, ""},
		{"I01 epoch", from, []string{"--build-arg=SOURCE_DATE_EPOCH=context"}, "SOURCE_DATE_EPOCH=context is not supported", 0, 0, "git log"},
		{"I01 epoch in the file", "ARG X\nARG SOURCE_DATE_EPOCH=yesterday\n" + from, nil, "SOURCE_DATE_EPOCH=yesterday", 2, 2, "git log"},
		{"I01 multi-platform", from, []string{"--build-arg=BUILDKIT_MULTI_PLATFORM=x"}, "BUILDKIT_MULTI_PLATFORM", 0, 0, ""},
		{"I01 contradiction", from, []string{"--build-arg=BUILDKIT_MULTI_PLATFORM=0", "--platform=linux/amd64,linux/arm64"}, "contradicts", 0, 0, "one platform"},
		{"a path for Windows", "FROM scratch\nWORKDIR C:\\\\x", []string{"--platform=windows/amd64"}, "is not supported", 2, 2, "slashes"},
		{"ignore pattern", from, []string{"--ignore=[a"}, ".dockerignore", 0, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := plan(t, tt.file, tt.args...)
			if tt.want == "" && tt.line == 0 {
				if err != nil {
					t.Fatalf("unexpected error: %v", err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			at, hint := diag.Explain(err)
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not contain %q", err, tt.want)
			}
			if at.Line != tt.line || at.Last != tt.last || at.Line > 0 && at.File != "Dockerfile" {
				t.Errorf("error is at %v-%d, want lines %d-%d: %v", at, at.Last, tt.line, tt.last, err)
			}
			if tt.hint == "" != (hint == "") || !strings.Contains(hint, tt.hint) {
				t.Errorf("hint %q does not contain %q", hint, tt.hint)
			}
		})
	}
}

// What the resolver says can be told by errors.Is, and stops the plan.
func TestResolverErrors(t *testing.T) {
	_, err := plan(t, "FROM missing:1")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v is not fs.ErrNotExist", err)
	}
	cause := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err = dockerfile.New(ctx, dockerfile.Options{
		File: []byte("FROM debian"), Resolver: registry{}, Platforms: []platforms.Platform{{OS: "linux", Architecture: "amd64"}},
	})
	if !errors.Is(err, cause) {
		t.Errorf("error of a cancelled context is %v, want %v", err, cause)
	}
}
