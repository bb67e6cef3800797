package manifest

import (
	"fmt"
	"net"
	"strings"
)

// maxInterfaceName is the length of a name of a network interface in Linux.
const maxInterfaceName = 15

// nics looks at the network cards.
func (v *validator) nics(nics []NIC) {
	for i := range nics {
		n := &nics[i]
		path := fmt.Sprintf("spec.nics[%d]", i)
		if (n.User == nil) == (n.Bridge == nil) {
			v.fault(path, "needs exactly one of user and bridge", "user: {} is QEMU's own network; bridge: {name: br0} joins one of the host")
		}
		v.check(path+".model", n.Model, validDriver)
		v.check(path+".mac", n.MAC, validMAC)
		if n.Bridge != nil {
			v.check(path+".bridge.name", n.Bridge.Name, validInterface)
		}
		if n.User != nil {
			for j, text := range n.User.Forward {
				v.check(fmt.Sprintf("%s.user.forward[%d]", path, j), text, validForward)
			}
		}
	}
}

func validForward(s string) error {
	_, err := ParseForward(s)
	return err
}

// validMAC says why s cannot be the address of a nic.
func validMAC(s string) error {
	addr, err := net.ParseMAC(s)
	switch {
	case err != nil || len(addr) != 6 || strings.Count(s, ":") != 5:
		return fmt.Errorf("%s is no MAC address: write six bytes such as \"52:54:00:12:34:56\"", quote(s))
	case addr[0]&1 != 0:
		return fmt.Errorf("%s is a multicast address, which no nic can have: make its first byte even, such as 52", quote(s))
	case addr.String() == "00:00:00:00:00:00":
		return fmt.Errorf("%s is the address of nobody: use one that begins with 52:54:00, or remove the key", quote(s))
	default:
		return nil
	}
}

// validInterface says why s cannot be a network interface of Linux.
func validInterface(s string) error {
	bad := len(s) > maxInterfaceName || s == "." || s == ".." || strings.HasPrefix(s, "-") || strings.ContainsAny(s, "/: \t,")
	if bad {
		return fmt.Errorf("%s is no name of a bridge: a network interface has at most %d characters, without '/', ':', ',' and spaces", quote(s), maxInterfaceName)
	}
	return nil
}
