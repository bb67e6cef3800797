package qemu

import (
	"net"
	"os"
	"sync/atomic"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp/qmptest"
)

// TestObserve_damagedConversation_isBegunAnew puts a peer in the place of QEMU's
// socket that damages what comes by, as QEMU 7.2 does on rare occasions.
func TestObserve_damagedConversation_isBegunAnew(t *testing.T) {
	uuid := func(id driver.Identity) any { return map[string]string{"UUID": id.UID} }
	running := map[string]string{"status": "running"}
	sound := func(p *qmptest.Peer, id driver.Identity) {
		p.Handshake()
		p.Reply(p.Expect("query-status"), running)
		p.Reply(p.Expect("query-uuid"), uuid(id))
		p.Stall()
	}
	cases := map[string]func(p *qmptest.Peer, id driver.Identity){
		"handshakeRefused": func(p *qmptest.Peer, _ driver.Identity) {
			p.Greet()
			p.Fail(p.Expect("qmp_capabilities"), "CommandNotFound", "Capabilities negotiation is already complete, command ignored")
			p.Stall()
		},
		"letGo": func(p *qmptest.Peer, _ driver.Identity) { p.Handshake(); p.Close() },
		"byteLost": func(p *qmptest.Peer, id driver.Identity) {
			p.Handshake()
			p.Fail(p.Expect("query-status"), "CommandNotFound", "The command uery-status has not been found")
			p.Reply(p.Expect("query-uuid"), uuid(id))
			p.Stall()
		},
		"answersOutOfOrder": func(p *qmptest.Peer, id driver.Identity) {
			p.Handshake()
			status := p.Expect("query-status")
			p.Reply(p.Expect("query-uuid"), uuid(id))
			p.Reply(status, running)
			p.Stall()
		},
	}
	for name, damaged := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			vm := r.vm("web", bareBoard)
			r.start(vm, false)
			id := *r.observe(vm, driver.DepthBrief, driver.Alive).Identity
			visits := r.standIn(func(p *qmptest.Peer, visit int32) {
				if visit == 1 {
					damaged(p, id)
				}
				sound(p, id)
			})
			r.observe(vm, driver.DepthBrief, driver.Alive)
			if n := visits.Load(); n != 2 {
				t.Errorf("%d visits, want 2", n)
			}
		})
	}
}

func TestObserve_conversationDamagedAgainAndAgain_isGivenUp(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	visits := r.standIn(func(p *qmptest.Peer, _ int32) {
		p.Handshake()
		p.Fail(p.Expect("query-status"), "CommandNotFound", "no")
		p.Stall()
	})
	r.timing.Greeting = 0 // nobody has to wait for the end of a process that does not end
	o := r.Observe(t.Context(), "web", vm, driver.DepthBrief)
	if o.Presence != driver.Unresponsive || visits.Load() != 2 {
		t.Errorf("observed %s %s after %d visits, want Unresponsive after 2", o.Presence, o.Message, visits.Load())
	}
}

// standIn puts a scripted peer in the place of a machine's socket for visits.
func (r *rig) standIn(script func(p *qmptest.Peer, visit int32)) *atomic.Int32 {
	r.t.Helper()
	path := r.layout.CLISocket("web")
	r.must(os.Remove(path))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	r.must(err)
	visits := new(atomic.Int32)
	one := func(p *qmptest.Peer) { script(p, visits.Add(1)) }
	qmptest.Serve(r.t, l, one, one, one, one)
	return visits
}
