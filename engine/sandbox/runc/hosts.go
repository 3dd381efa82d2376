//go:build linux && cgo && (amd64 || arm64)

package runc

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/engine/sandbox"
)

const defaultHostname = "buildkitsandbox"

func hostname(spec sandbox.Spec) string {
	if spec.Hostname != "" {
		return spec.Hostname
	}
	return defaultHostname
}

// mountEtc shows /etc/hosts and /etc/resolv.conf, read-only: nothing is written
// into the root.
func (r *run) mountEtc() error {
	hosts, err := hostsFile(r.spec)
	if err != nil {
		return err
	}
	resolv, err := resolvConf(r.spec.Network)
	if err != nil {
		return err
	}
	if err := r.mountFile("/etc/resolv.conf", resolv); err != nil {
		return err
	}
	return r.mountFile("/etc/hosts", hosts)
}

func (r *run) mountFile(target string, content []byte) error {
	name, err := r.executor.instance.file(content)
	if err != nil {
		return err
	}
	f, err := hostTree(name)
	if err != nil {
		return err
	}
	defer f.Close()
	const attr = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	if err := setAttr(f, attr); err != nil {
		return err
	}
	return r.attachAt(f, target, false)
}

// hostsFile returns the content of /etc/hosts, with the lines of BuildKit.
func hostsFile(spec sandbox.Spec) ([]byte, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "127.0.0.1\tlocalhost %s\n", hostname(spec))
	b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, h := range spec.Hosts {
		ip, err := netip.ParseAddr(h.IP)
		if err != nil {
			return nil, fmt.Errorf("add host %q: %w", h.Name, err)
		}
		if h.Name == "" || strings.ContainsFunc(h.Name, notInName) {
			return nil, fmt.Errorf("add host %q: this is not a name", h.Name)
		}
		fmt.Fprintf(&b, "%s\t%s\n", ip, h.Name)
	}
	return []byte(b.String()), nil
}

// Where the host says which nameservers it uses. systemd-resolved has two
// files: one names its own listener on loopback, the other what it asks.
const (
	resolvPath         = "/etc/resolv.conf"
	resolvPathResolved = "/run/systemd/resolve/resolv.conf"
)

// resolvedStub is where systemd-resolved listens.
var resolvedStub = netip.AddrFrom4([4]byte{127, 0, 0, 53})

// resolvConf returns the content of /etc/resolv.conf for a network.
func resolvConf(network sandbox.Network) ([]byte, error) {
	host, err := readHost(resolvPath)
	if err != nil {
		return nil, err
	}
	conf := parseResolv(host)
	if network != sandbox.HostNetwork && slices.Equal(conf.nameservers, []netip.Addr{resolvedStub}) {
		if host, err = readHost(resolvPathResolved); err != nil {
			return nil, err
		}
		conf = parseResolv(host)
	}
	return conf.forNetwork(network).bytes(), nil
}

// readHost returns the content of a small file; one that is missing is empty.
func readHost(name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// resolv is what a resolv.conf says.
type resolv struct {
	nameservers []netip.Addr
	search      []string
	options     []string
	other       []string // lines
}

// publicNameservers are used where the host has none that can be reached. They
// are BuildKit's.
var publicNameservers = []netip.Addr{
	netip.AddrFrom4([4]byte{8, 8, 8, 8}),
	netip.AddrFrom4([4]byte{8, 8, 4, 4}),
	netip.AddrFrom16([16]byte{0x20, 0x01, 0x48, 0x60, 0x48, 0x60, 14: 0x88, 15: 0x88}),
	netip.AddrFrom16([16]byte{0x20, 0x01, 0x48, 0x60, 0x48, 0x60, 14: 0x88, 15: 0x44}),
}

// parseResolv reads a resolv.conf. Comments and nameservers that are no
// addresses are left out. As in resolv.conf(5) the last search or domain counts,
// and options add up.
func parseResolv(b []byte) resolv {
	var c resolv
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.ContainsRune("#;", rune(fields[0][0])) {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if len(fields) < 2 {
				continue
			}
			if ip, err := netip.ParseAddr(fields[1]); err == nil {
				c.nameservers = append(c.nameservers, ip)
			}
		case "domain", "search":
			if len(fields) > 1 {
				c.search = fields[1:]
			}
		case "options":
			c.options = append(c.options, fields[1:]...)
		default:
			c.other = append(c.other, strings.TrimSpace(line))
		}
	}
	return c
}

// forNetwork returns what can be used: on the host's network all of it;
// elsewhere nameservers on loopback can't be reached. Where none is left, there
// are the public ones. That is what BuildKit does.
func (c resolv) forNetwork(network sandbox.Network) resolv {
	if network == sandbox.HostNetwork && len(c.nameservers) > 0 {
		return c
	}
	var reachable []netip.Addr
	for _, ip := range c.nameservers {
		if !ip.IsLoopback() {
			reachable = append(reachable, ip)
		}
	}
	if len(reachable) == 0 {
		reachable = publicNameservers
	}
	c.nameservers = reachable
	return c
}

func (c resolv) bytes() []byte {
	var b strings.Builder
	for _, ip := range c.nameservers {
		fmt.Fprintf(&b, "nameserver %s\n", ip)
	}
	if len(c.search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.search, " "))
	}
	if len(c.options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(c.options, " "))
	}
	for _, line := range c.other {
		b.WriteString(line + "\n")
	}
	return []byte(b.String())
}
