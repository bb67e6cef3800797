package qemu

import (
	"encoding/json"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp/qmptest"
)

// TestObserve_socketAsLaunched_isNotAskedForItsUUID puts a peer at the socket that ends
// the conversation with whoever asks for more than the run state, first as a stranger
// and then as what the launch record names.
func TestObserve_socketAsLaunched_isNotAskedForItsUUID(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	r.standIn(func(p *qmptest.Peer, _ int32) {
		p.Handshake()
		p.Reply(p.Expect("query-status"), map[string]string{"status": "running"})
		p.Close()
	})
	r.timing.Greeting = 0 // nobody has to wait for the end of a process that does not end
	r.observe(vm, driver.DepthBrief, driver.Unresponsive)
	r.rewriteLaunched("web", func(l *driver.Launched) { l.CLISocket = fileID(r.layout.CLISocket("web")) })
	r.observe(vm, driver.DepthBrief, driver.Alive)
}

// TestObserve_emptyAnswer_isNoRunState holds a brief look to its only answer.
func TestObserve_emptyAnswer_isNoRunState(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	r.standIn(func(p *qmptest.Peer, _ int32) {
		p.Handshake()
		p.Reply(p.Expect("query-status"), json.RawMessage("{}"))
		p.Stall()
	})
	r.rewriteLaunched("web", func(l *driver.Launched) { l.CLISocket = fileID(r.layout.CLISocket("web")) })
	r.timing.Greeting = 0
	r.observe(vm, driver.DepthBrief, driver.Unresponsive)
}
