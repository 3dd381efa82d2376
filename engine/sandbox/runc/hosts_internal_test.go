//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/engine/sandbox"
)

func TestResolvConf(t *testing.T) {
	const public = "nameserver 8.8.8.8\nnameserver 8.8.4.4\nnameserver 2001:4860:4860::8888\nnameserver 2001:4860:4860::8844\n"
	tests := []struct {
		name, in, host, elsewhere string
	}{
		{"a nameserver", "nameserver 10.0.0.1\n", "nameserver 10.0.0.1\n", "nameserver 10.0.0.1\n"},
		{"one on loopback", "nameserver 127.0.0.1\nnameserver 10.0.0.1\n", "nameserver 127.0.0.1\nnameserver 10.0.0.1\n", "nameserver 10.0.0.1\n"},
		{"only on loopback", "nameserver 127.0.0.1\nnameserver ::1\noptions edns0\n", "nameserver 127.0.0.1\nnameserver ::1\noptions edns0\n", public + "options edns0\n"},
		{"none", "", public, public},
		{
			"all that there is", "# comment\n;too\n\nnameserver 10.0.0.1 # x\nnameserver dns\nnameserver\ndomain a\nsearch b c\nsearch\noptions ndots:2\noptions rotate\nsortlist 10.0.0.0\n",
			"nameserver 10.0.0.1\nsearch b c\noptions ndots:2 rotate\nsortlist 10.0.0.0\n",
			"nameserver 10.0.0.1\nsearch b c\noptions ndots:2 rotate\nsortlist 10.0.0.0\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conf := parseResolv([]byte(tt.in))
			if got := string(conf.forNetwork(sandbox.HostNetwork).bytes()); got != tt.host {
				t.Errorf("on the host's network:\n%s", cmp.Diff(tt.host, got))
			}
			if got := string(conf.forNetwork(sandbox.NoNetwork).bytes()); got != tt.elsewhere {
				t.Errorf("elsewhere:\n%s", cmp.Diff(tt.elsewhere, got))
			}
		})
	}
}

// What was written is read again as the same, and has no nameserver that can't
// be reached.
func FuzzParseResolv(f *testing.F) {
	f.Add("nameserver 127.0.0.53\nsearch a b\noptions x\nother\n")
	f.Add("nameserver fe80::1%eth0\ndomain\x00\r\n;\n#")
	f.Fuzz(func(t *testing.T, in string) {
		conf := parseResolv([]byte(in)).forNetwork(sandbox.NoNetwork)
		out := string(conf.bytes())
		if again := string(parseResolv([]byte(out)).bytes()); again != out {
			t.Errorf("%q becomes %q", out, again)
		}
		if len(conf.nameservers) == 0 || slices.ContainsFunc(conf.nameservers, netip.Addr.IsLoopback) {
			t.Errorf("%q", out)
		}
	})
}
