package manifest

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Forward is one port of the host that reaches a port of the guest.
type Forward struct {
	// Proto is tcp or udp.
	Proto string
	// HostAddr is an IPv4 address of the host; empty for all of them.
	HostAddr string
	// HostPort is the port of the host.
	HostPort int
	// GuestPort is the port of the guest.
	GuestPort int
}

// ParseForward reads "tcp:HOSTADDR:HOSTPORT:GUESTPORT", or udp. HOSTADDR is an
// IPv4 address or empty for all addresses of the host.
func ParseForward(s string) (Forward, error) {
	parts := strings.Split(s, ":")
	if len(parts) != 4 {
		return Forward{}, fmt.Errorf("%s is no forward: write \"tcp:HOSTADDR:HOSTPORT:GUESTPORT\" such as \"tcp:127.0.0.1:2222:22\"", quote(s))
	}
	f := Forward{Proto: parts[0], HostAddr: parts[1]}
	if f.Proto != "tcp" && f.Proto != "udp" {
		return Forward{}, fmt.Errorf("%s begins with %s: only \"tcp\" and \"udp\" can be forwarded", quote(s), quote(f.Proto))
	}
	if f.HostAddr != "" {
		addr, err := netip.ParseAddr(f.HostAddr)
		if err != nil || !addr.Is4() {
			return Forward{}, fmt.Errorf("%s has the host address %s: use an IPv4 address such as 127.0.0.1, or nothing for all addresses", quote(s), quote(f.HostAddr))
		}
	}
	var err error
	if f.HostPort, err = parsePort(parts[2]); err != nil {
		return Forward{}, fmt.Errorf("%s: host port %w", quote(s), err)
	}
	if f.GuestPort, err = parsePort(parts[3]); err != nil {
		return Forward{}, fmt.Errorf("%s: guest port %w", quote(s), err)
	}
	return f, nil
}

// String is the text form.
func (f Forward) String() string {
	return fmt.Sprintf("%s:%s:%d:%d", f.Proto, f.HostAddr, f.HostPort, f.GuestPort)
}

// overlaps is true when both cannot listen on the host at once.
func (f Forward) overlaps(g Forward) bool {
	return f.Proto == g.Proto && f.HostPort == g.HostPort &&
		(f.anyAddr() || g.anyAddr() || f.HostAddr == g.HostAddr)
}

func (f Forward) anyAddr() bool { return f.HostAddr == "" || f.HostAddr == "0.0.0.0" }

// parsePort reads a port number written plainly, from 1 to 65535.
func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("%s is no port: use a number from 1 to 65535", quote(s))
	}
	return int(n), nil
}
