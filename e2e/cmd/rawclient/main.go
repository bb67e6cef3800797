package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

// patience limits everything this program waits for.
const patience = 30 * time.Second

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "rawclient:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("name what to do: await, status, ask, jobs, end or start")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	parallel := flags.Int("j", 8, "how many at a time")
	file := flags.String("f", "", "JSON file: commands to ask, or command lines to start")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	sockets := flags.Args()
	deadline := time.Now().Add(patience)
	switch args[0] {
	case "await":
		return each(*parallel, sockets, func(socket string) error { return await(socket, deadline) })
	case "status":
		return each(*parallel, sockets, func(socket string) error { return status(socket, deadline) })
	case "end":
		return each(*parallel, sockets, func(socket string) error { return end(socket, deadline, out) })
	case "ask":
		var commands []json.RawMessage
		if err := read(*file, &commands); err != nil {
			return err
		}
		request := pipeline(commands)
		return each(*parallel, sockets, func(socket string) error { return ask(socket, request, len(commands), deadline) })
	case "jobs":
		var commands []json.RawMessage
		if err := read(*file, &commands); err != nil {
			return err
		}
		return each(*parallel, sockets, func(socket string) error { return jobs(socket, commands, deadline, out) })
	case "start":
		var machines []machine
		if err := read(*file, &machines); err != nil {
			return err
		}
		return each(*parallel, machines, func(m machine) error { return m.start(deadline) })
	default:
		return fmt.Errorf("%q is unknown; name await, status, ask, jobs, end or start", args[0])
	}
}

func read(path string, v any) error {
	if path == "" {
		return errors.New("name a file with -f")
	}
	text, err := os.ReadFile(path) //nolint:gosec // Whoever runs this names the file.
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// each does something with every item, several at a time.
func each[T any](parallel int, items []T, do func(T) error) error {
	if parallel < 1 {
		return fmt.Errorf("-j %d: at least one at a time", parallel)
	}
	work := make(chan T)
	results := make(chan error, len(items))
	for range min(parallel, len(items)) {
		go func() {
			for item := range work {
				results <- do(item)
			}
		}()
	}
	for _, item := range items {
		work <- item
	}
	close(work)
	var failed error
	for range items {
		failed = errors.Join(failed, <-results)
	}
	return failed
}
