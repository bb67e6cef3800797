// Package timing is the one table of durations: every wait and limit in maqet
// takes its default from here, each has a name, and the flag
// --timeouts NAME=DURATION,... changes it.
package timing
