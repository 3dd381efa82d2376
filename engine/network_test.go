package engine_test

import (
	"os"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/engine"
	"github.com/slipway-build/slipway/engine/graph"
)

// RUN has the host's network unless it is told otherwise, and each mode has a
// key of its own. The host's by name needs an entitlement, which nobody has.
func TestInvariant17_NetworkModes(t *testing.T) {
	b := newBuilder(t)
	const say = "readlink /proc/self/ns/net > /net\n"
	dir := contextDir(t, map[string]string{"Dockerfile": base + "RUN " + say})
	net := func(mode graph.NetworkMode) string {
		t.Helper()
		return strings.TrimSpace(b.files(engine.Request{Context: dir, Network: mode})["/net"])
	}
	host, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got := net(graph.NetworkDefault); got != host {
		t.Errorf("default: %s, want that of the host, %s", got, host)
	}
	if got := net(graph.NetworkNone); got == host || got == "" {
		t.Errorf("none: %q, want a network of its own, run anew", got)
	}

	named := contextDir(t, map[string]string{"Dockerfile": base + "RUN --network=host " + say})
	if _, err := b.build(engine.Request{Context: named}); err == nil || !strings.Contains(err.Error(), "network.host") {
		t.Errorf("--network=host: %v, want an error that names the entitlement", err)
	}
	if ran := b.ran(); len(ran) != 0 {
		t.Errorf("--network=host: ran %q", ran)
	}
}
