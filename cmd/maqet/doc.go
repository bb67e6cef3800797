// Command maqet keeps the virtual machines of one host as a folder of YAML
// files says they should be.
//
// This package is how people ask and read answers: cobra commands, tables and
// exit codes. It decides nothing: every command builds the rooms it needs
// (see app), asks them, and prints. Exit codes are chosen in one place (see
// exit.go).
package main
