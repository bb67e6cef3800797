// Command rawclient is the yardstick that `make bench` holds maqet against: the
// least that any program must do to start QEMU processes or to ask them.
//
//	rawclient await SOCKET                 until query-status says running
//	rawclient status [-j N] SOCKET...      query-status of each
//	rawclient ask [-j N] -f FILE SOCKET... the commands in FILE of each, pipelined
//	rawclient jobs -f FILE SOCKET          the commands in FILE in turn, each until its job has ended
//	rawclient end SOCKET                   until the connection ends
//	rawclient start [-j N] -f FILE         start the command lines in FILE, each until it runs
//
// It shares no code with maqet: sockets, JSON and nothing else, so that it is a
// floor and not the same work done twice. It prints nothing unless it fails, but
// "end" says in a line each when it is connected and when that has ended, and "jobs"
// for how long the guest stood still.
package main
