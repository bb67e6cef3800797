package qemu

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

const (
	// forwardLooks is how often the table of connections is looked at for one probe,
	// and forwardPause the time before the first look, which doubles with each. A
	// guest that listens answers within a few milliseconds.
	forwardLooks = 5
	forwardPause = 2 * time.Millisecond
	// maxUnanswered is how many connections may wait for the guest at once. Each
	// probe of a guest that is not there leaves one for 75 seconds, during which QEMU
	// offers it anew ever more rarely, so it takes new ones to notice a guest soon;
	// and once the guest is there it gets them all, so they must not be many.
	maxUnanswered = 24
)

// forwardOpen tells whether a port of the guest behind a forward accepts connections.
//
// That the forward accepts one says nothing: QEMU does that itself, before it asks
// the guest. Its table of connections tells whether the guest has answered.
func (d *Driver) forwardOpen(ctx context.Context, conn *qmp.Conn, f manifest.Forward) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timing.Query)
	defer cancel()
	before, err := usernetTable(ctx, conn, f)
	if err != nil || before.answered {
		return before.answered, err
	}
	if before.waiting >= maxUnanswered {
		return false, nil
	}
	var dialer net.Dialer
	nc, err := dialer.DialContext(ctx, "tcp", forwardAddress(f))
	if err != nil {
		// Nobody listens: the forward is gone, or its QEMU is.
		return false, nil
	}
	defer func() { _ = nc.Close() }() // nothing was said
	for i := range forwardLooks {
		spoke, ended := listenFor(nc, forwardPause<<i)
		if spoke {
			return true, nil
		}
		table, err := usernetTable(ctx, conn, f)
		if err != nil || table.answered || ended {
			return table.answered, err
		}
	}
	return false, nil
}

// forwardAddress is where a forward is reached from the host.
func forwardAddress(f manifest.Forward) string {
	host := f.HostAddr
	if addr, err := netip.ParseAddr(host); err != nil || addr.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(f.HostPort))
}

// listenFor waits for the guest to say something, or to end the connection.
func listenFor(nc net.Conn, most time.Duration) (spoke, ended bool) {
	if err := nc.SetReadDeadline(time.Now().Add(most)); err != nil {
		return false, true
	}
	n, err := nc.Read(make([]byte, 1))
	return n > 0, err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// forwardTable is what QEMU says of the connections over one forward.
type forwardTable struct {
	// answered tells that the guest has accepted one.
	answered bool
	// waiting is how many it has not answered yet.
	waiting int
}

// usernetTable asks for QEMU's own table. QMP has no command for it.
func usernetTable(ctx context.Context, conn *qmp.Conn, f manifest.Forward) (forwardTable, error) {
	var text string
	err := conn.Do(ctx, "human-monitor-command", map[string]any{"command-line": "info usernet"}, &text)
	if err != nil {
		return forwardTable{}, err
	}
	return parseUsernet(text, f), nil
}

// parseUsernet reads lines such as
//
//	TCP[SYN_SENT]  14  127.0.0.1 2222  10.0.2.15 22  0 0
//
// where the first address is the forward's.
func parseUsernet(text string, f manifest.Forward) forwardTable {
	var t forwardTable
	hostPort, guestPort := strconv.Itoa(f.HostPort), strconv.Itoa(f.GuestPort)
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 6 || words[3] != hostPort || words[5] != guestPort {
			continue
		}
		state, ok := strings.CutPrefix(words[0], "TCP[")
		if !ok {
			continue
		}
		switch strings.TrimSuffix(state, "]") {
		case "SYN_SENT":
			t.waiting++
		case "ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT_1", "FIN_WAIT_2":
			// The guest's end was open, whoever has closed it since.
			t.answered = true
		}
	}
	return t
}
