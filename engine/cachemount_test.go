package engine_test

import (
	"testing"

	"github.com/slipway-build/slipway/engine"
)

// F05: the directory of a cache mount that is filled from a stage is the
// stage's, with its owner and mode, unless the mount asks for others.
func TestBuild_F05_CacheMountFromAStageKeepsItsOwner(t *testing.T) {
	b := newBuilder(t)
	dir := contextDir(t, map[string]string{"Dockerfile": base + `FROM base AS tools
RUN mkdir -p /i/sub && echo x > /i/f && chmod 2710 /i && chown 8:9 /i
FROM base AS build
RUN --mount=type=cache,target=/c,from=tools,source=/i stat -c '%a %u %g' /c > /source && cat /c/f >> /source
RUN --mount=type=cache,target=/c,from=tools,source=/i,uid=4 stat -c '%a %u %g' /c > /uid
RUN --mount=type=cache,target=/c,from=tools,source=/i,mode=1777,gid=5 stat -c '%a %u %g' /c > /mode
RUN --mount=type=cache,target=/c stat -c '%a %u %g' /c > /new
FROM scratch
COPY --from=build /source /uid /mode /new /
`})
	files := b.files(engine.Request{Context: dir})
	for name, want := range map[string]string{
		"/source": "2710 8 9\nx\n",
		"/uid":    "755 4 0\n",
		"/mode":   "1777 0 5\n",
		"/new":    "755 0 0\n",
	} {
		if got := files[name]; got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}
