// Package qga is one visit to one guest agent, the program qemu-ga inside a guest.
//
// # What it is
//
// [Conn] speaks the agent's protocol over the socket of the virtio-serial port that
// the agent listens on: one JSON command per line, one JSON answer per line, nothing
// in between. It knows nothing of machines and their files; meaning belongs to its
// callers. The methods in commands.go are the commands that maqet uses, with their
// answers as Go values.
//
// # Basics
//
//	conn, err := qga.Dial(ctx, "/run/vm/web/qga.sock", qga.Options{})
//	if err != nil { ... }
//	defer conn.Close()
//
//	os, err := conn.OSInfo(ctx)
//
// # Promises
//
//   - A Conn begins in step: whatever an earlier client left in the pipe, half a
//     command on the way in or megabytes of answer on the way out, is gone when Dial
//     returns (guest-sync-delimited).
//   - Every wait ends. The agent may be silent for [Options].Answer at a time, and
//     the context bounds the whole. After a wait that ran out the connection is over,
//     since a late answer would be taken for the next one.
//   - An answer is read up to 2 MiB, that with a program's output up to
//     [Options].MaxReply, and what the agent refuses is an [Error] with its class and
//     sentence.
//
// # Caveats
//
// The socket takes one client at a time: a second one connects and hears nothing,
// which looks like an agent that does not answer. Callers take a lock first. Nobody
// but the guest vouches for what an agent says: its texts are bounded in length
// here, and are a stranger's all the same.
//
// A Conn is used by one goroutine at a time.
package qga
