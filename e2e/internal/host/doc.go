// Package host is the shared fixture of the end-to-end tests: a private maqet
// with folders of its own, its built binary, and a look at the QEMU processes
// that is independent of maqet's own.
package host
