package dockerfile

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
)

// expose plans an EXPOSE.
func (s *stage) expose(c *instructions.ExposeCommand) error {
	var ports []string
	for _, word := range c.Ports {
		specs, err := s.t.lex.ProcessWords(word, s.env)
		if err != nil {
			return err
		}
		for _, spec := range specs {
			more, err := s.ports(spec, c)
			if err != nil {
				return fmt.Errorf("invalid port %q: %w", spec, err)
			}
			ports = append(ports, more...)
		}
	}
	if s.config.Config.ExposedPorts == nil {
		s.config.Config.ExposedPorts = make(map[string]struct{}, len(ports))
	}
	for _, port := range ports {
		s.config.Config.ExposedPorts[port] = struct{}{}
	}
	s.commit(fmt.Sprintf("EXPOSE %v", ports), false)
	return nil
}

// ports reads [[ip:]host:]port[-port][/protocol]. What precedes the port was
// never of use, but is accepted.
func (s *stage) ports(spec string, c *instructions.ExposeCommand) ([]string, error) {
	ip, host, port := "", "", spec
	if i := strings.LastIndexByte(spec, ':'); i >= 0 {
		host, port = spec[:i], spec[i+1:]
		if i := strings.LastIndexByte(host, ':'); i >= 0 {
			ip, host = host[:i], host[i+1:]
		}
	}
	port, proto, _ := strings.Cut(port, "/")
	if port == "" {
		return nil, errors.New("there is no port")
	}
	switch strings.ToLower(proto) {
	case "":
		proto = "tcp"
	case "tcp", "udp", "sctp":
	default:
		return nil, fmt.Errorf("unknown protocol %q: want tcp, udp or sctp", proto)
	}
	if proto != strings.ToLower(proto) {
		s.say(&linter.RuleExposeProtoCasing, c.Location(), linter.RuleExposeProtoCasing.Format(spec))
	}
	if ip != "" || host != "" {
		s.say(&linter.RuleExposeInvalidFormat, c.Location(), linter.RuleExposeInvalidFormat.Format(spec))
	}
	if bare := strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]"); ip != "" && net.ParseIP(bare) == nil {
		return nil, fmt.Errorf("invalid IP address %q", ip)
	}
	first, last, err := portRange(port)
	if err != nil {
		return nil, err
	}
	if host != "" {
		hostFirst, hostLast, err := portRange(host)
		if err != nil {
			return nil, err
		}
		if last != first && last-first != hostLast-hostFirst {
			return nil, fmt.Errorf("ranges %s and %s have different lengths", host, port)
		}
	}
	list := make([]string, 0, last-first+1)
	for p := first; p <= last; p++ {
		list = append(list, strconv.Itoa(p)+"/"+strings.ToLower(proto))
	}
	return list, nil
}

// portRange reads port or first-last.
func portRange(s string) (first, last int, err error) {
	from, to, isRange := strings.Cut(s, "-")
	if first, err = portNumber(from); err != nil {
		return 0, 0, err
	}
	if !isRange {
		return first, first, nil
	}
	if last, err = portNumber(to); err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, fmt.Errorf("range %s goes backwards", s)
	}
	return first, last, nil
}

func portNumber(s string) (int, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 || n > 65535 {
		return 0, fmt.Errorf("%q is not a number from 0 to 65535", s)
	}
	return int(n), nil
}
