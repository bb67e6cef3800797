// Package qmp is one connection to one QMP socket of one QEMU.
//
// # What it is
//
// [Conn] speaks the QEMU Machine Protocol: it writes commands, matches replies
// to callers, and hands events to subscribers. It knows nothing of
// machines, disks or manifests; meaning belongs to its callers. *Conn implements
// the Monitor interface of github.com/digitalocean/go-qemu/qmp, so code written
// against that interface runs over it unchanged.
//
// # Basics
//
//	conn, err := qmp.Dial(ctx, "/run/vm/web/cli.sock", qmp.Options{})
//	if err != nil { ... }
//	defer conn.Close()
//
//	var status struct{ Status string }
//	err = conn.Do(ctx, "query-status", nil, &status)
//
// Several commands go out in one write, and are answered independently:
//
//	a := qmp.NewCall("query-kvm", nil, &kvm)
//	b := qmp.NewCall("query-name", nil, &name)
//	err = conn.DoAll(ctx, a, b) // a.Err() and b.Err() tell them apart
//
// [DialPipelined] writes its calls together with the handshake, before the
// greeting has arrived. That is how a start is confirmed: the socket is connected
// before QEMU runs, and the start is true when query-status is answered. A QEMU
// that dies on the way ends the call at once with [ErrClosed].
//
// # Whose reply it is
//
// Replies are matched to callers by id. Calls that go out with the handshake have
// none: QEMU reads its monitor byte by byte, so each id costs it about 0.1 ms, and
// it answers in order. What was meant for a client that has gone comes before the
// reply to the handshake, whose id is random, and is dropped.
//
// # Promises
//
//   - Every wait ends with the reply, the caller's context, or the connection.
//     A context without a deadline waits for the other two.
//   - A caller that gives up costs nobody else anything: its reply is dropped
//     and counted. Only a write that stopped in the middle ends the connection,
//     because nothing sent after half a command could be understood.
//   - An event that nobody reads blocks no reply. Each subscription keeps the
//     newest events, drops the oldest and counts them.
//   - After the end every pending and every later call returns an error for
//     which errors.Is(err, [ErrClosed]) holds, with the cause wrapped, whether
//     the peer closed, reset, lied, or Close was called.
//   - The connection owns one goroutine, which is gone when Close returns.
//
// # Caveats
//
// A QMP socket serves one client. A second one connects and hears nothing until
// the first leaves, so a handshake that runs out of time may mean a busy socket
// as well as a hung QEMU. A Conn never redials. Calls cannot be used twice.
// Out-of-band execution is not negotiated.
package qmp
