package main

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// environment is what a command may know of the process it runs in. Tests
// build their own, so two commands can run in one process.
type environment struct {
	in     io.Reader
	out    io.Writer
	err    io.Writer
	getenv func(string) string
	home   string
	uid    int
	// inTTY, outTTY and errTTY tell whether a person is at the stream.
	inTTY, outTTY, errTTY bool
	// size is the columns and rows of stderr's terminal; zero where unknown.
	size func() (columns, rows int)
	// raw gives a command each key of the terminal at stdin as it is pressed, until restore
	// is called; nil in tests.
	raw func() (restore func(), err error)
	// outlive leaves SIGHUP, which ends commands, to one that goes on; nil in tests.
	outlive func()
}

func stdEnvironment() environment {
	home, err := os.UserHomeDir()
	if err != nil {
		// Without a home the state dir must be named; newApp says so.
		home = ""
	}
	return environment{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		getenv: os.Getenv, home: home, uid: os.Getuid(),
		inTTY: isTerminal(os.Stdin), outTTY: isTerminal(os.Stdout), errTTY: isTerminal(os.Stderr),
		raw:  rawTerminal,
		size: func() (int, int) { return terminalSize(os.Stderr) },
	}
}

func isTerminal(f *os.File) bool {
	return term.IsTerminal(int(f.Fd()))
}

func terminalSize(f *os.File) (columns, rows int) {
	columns, rows, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0, 0
	}
	return columns, rows
}

// color tells whether output may have colour (https://no-color.org).
func (e environment) color(tty bool) bool {
	return tty && e.getenv("NO_COLOR") == "" && e.getenv("TERM") != "dumb"
}

// rawTerminal sets the terminal at standard input to raw mode. Calling restore again does
// nothing.
func rawTerminal() (restore func(), err error) {
	fd := int(os.Stdin.Fd())
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("set the terminal to raw mode: %w", err)
	}
	return sync.OnceFunc(func() { _ = term.Restore(fd, before) }), nil // a terminal that is gone needs none
}
