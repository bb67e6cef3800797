// Package qmptest is a scripted QMP peer for tests: a fake QEMU that says exactly
// what a test wants, when it wants it, including what a real one never should.
//
// # Basics
//
// A [Script] is a function that plays the server's side of one connection:
//
//	path := qmptest.Listen(t, func(p *qmptest.Peer) {
//		p.Handshake()
//		p.Reply(p.Expect("query-status"), map[string]any{"status": "running"})
//		p.Event("SHUTDOWN", map[string]any{"guest": true})
//		p.Close()
//	})
//
// [Listen] serves scripts on a unix socket, one per connection in turn, [Pipe] on
// a net.Pipe, which works inside a testing/synctest bubble. [Peer.Serve] answers
// from a table of handlers for as long as the client stays.
//
// # Faults
//
// [Peer.Stall] says nothing more, [Peer.ReadBytes] stops reading in the middle of
// a command, [Peer.Raw] sends anything, [Peer.Oversized] a reply of a given size,
// [Peer.Flood] a storm of events, [Peer.Reset] closes with input unread, so that
// the client meets ECONNRESET instead of EOF, [Peer.CloseRead] closes one
// direction only.
//
// # Caveats
//
// A script runs in a goroutine of its own. Its failed expectations are reported
// through t.Errorf and end that script only. When the test ends, connections are
// closed, scripts that still wait are ended without a word, and the test waits
// until they are gone. The package depends on nothing but the standard library,
// above all not on the client it tests.
package qmptest
