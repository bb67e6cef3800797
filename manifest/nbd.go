package manifest

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// DefaultNBDPort is the port that IANA gave to NBD.
const DefaultNBDPort = 10809

// maxSocketPath is how long the path of a socket may be.
const maxSocketPath = 107

// exportSyntax is that of an export's name: nothing that would end it in a URI.
var exportSyntax = newPattern(`^[A-Za-z0-9._:@+=-][A-Za-z0-9._:@+=/-]{0,254}$`)

// URI is the export as QEMU writes it.
func (n *NBD) URI() string {
	export := ""
	if n.Export != "" {
		export = "/" + n.Export
	}
	if n.Unix != "" {
		return "nbd+unix://" + export + "?socket=" + n.Unix
	}
	return fmt.Sprintf("nbd://%s:%d%s", n.Host, n.Port, export)
}

// ParseNBDURI reads what URI writes. It is false for anything else.
func ParseNBDURI(text string) (NBD, bool) {
	if rest, ok := strings.CutPrefix(text, "nbd+unix://"); ok {
		export, socket, ok := strings.Cut(rest, "?socket=")
		return NBD{Unix: socket, Export: strings.TrimPrefix(export, "/")}, ok
	}
	rest, ok := strings.CutPrefix(text, "nbd://")
	if !ok {
		return NBD{}, false
	}
	server, export, _ := strings.Cut(rest, "/")
	at := strings.LastIndex(server, ":")
	if at < 0 {
		return NBD{}, false
	}
	port, err := strconv.Atoi(server[at+1:])
	return NBD{Host: server[:at], Port: port, Export: export}, err == nil
}

// nbd looks at an export.
func (v *validator) nbd(n *NBD, path string) {
	switch {
	case n.Unix == "" && n.Host == "":
		v.fault(path, "needs a server", "name its socket with unix, or its address with host")
	case n.Unix != "" && n.Host != "":
		v.fault(path, "has both unix and host", "keep unix for a socket of this host, or host for an address")
	case n.Unix != "" && v.isWritten(path, "port"):
		v.fault(path+".port", "a socket has no port", "remove the key")
	}
	if len(n.Unix) > maxSocketPath {
		v.fault(path+".unix", fmt.Sprintf("has %d bytes; the path of a socket has at most %d", len(n.Unix), maxSocketPath), "move the socket")
	}
	if n.Host != "" {
		if _, err := netip.ParseAddr(n.Host); err != nil && (!hostnameSyntax.MatchString(n.Host) || len(n.Host) > 253) {
			v.fault(path+".host", quote(n.Host)+" is no address and no host name", "give the port as a key of its own")
		}
	}
	if v.isWritten(path, "port") && (n.Port < 1 || n.Port > 65535) {
		v.fault(path+".port", fmt.Sprintf("%d is no port", n.Port), "use a number from 1 to 65535")
	}
	if n.Export != "" && !exportSyntax.MatchString(n.Export) {
		v.fault(path+".export", quote(n.Export)+" cannot be the name of an export", "use letters, digits and '.', '_', ':', '@', '+', '=', '/', '-'")
	}
}
