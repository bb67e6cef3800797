package qemu

import (
	"fmt"

	"github.com/maqet/maqet/manifest"
)

// NetdevID is QEMU's id of the network behind a nic. It is not the nic's own
// name, since set_link looks a name up among both and must find one thing.
func NetdevID(nic string) string { return nic + ".net" }

// hostForward is an element of QEMU's hostfwd list.
type hostForward struct {
	Str string `json:"str"`
}

// userNetdev is QEMU's own network with its port forwards.
func userNetdev(nic manifest.NIC) (object, error) {
	netdev := object{{"type", "user"}, {"id", NetdevID(nic.Name)}}
	forwards := make([]hostForward, 0, len(nic.User.Forward))
	for _, text := range nic.User.Forward {
		f, err := manifest.ParseForward(text)
		if err != nil {
			return nil, err
		}
		forwards = append(forwards, hostForward{ForwardRule(f)})
	}
	if len(forwards) > 0 {
		netdev = append(netdev, member{"hostfwd", forwards})
	}
	return netdev, nil
}

// ForwardRule is a forward as QEMU writes it: "tcp:127.0.0.1:2222-:22".
func ForwardRule(f manifest.Forward) string {
	return fmt.Sprintf("%s:%s:%d-:%d", f.Proto, f.HostAddr, f.HostPort, f.GuestPort)
}

// tapNetdev is a tap that maqet has opened, so that QEMU need not run a helper, which
// its sandbox forbids. The descriptor is the number of an inherited one, or the name
// of one that was handed over since.
func tapNetdev(nic manifest.NIC, fd string) object {
	return object{{"type", "tap"}, {"id", NetdevID(nic.Name)}, {"fd", fd}}
}
