package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience limits every wait for something that has to happen by itself.
const patience = 2 * time.Minute

// process is a program that goes on running, whose lines are read as they come.
type process struct {
	name string
	cmd  *exec.Cmd
	// read is closed when there will be no more lines.
	read chan struct{}

	mu    sync.Mutex
	lines []string
	// more wakes whoever waits for lines.
	more chan struct{}
}

// errEnded is a program that ended before it said what was waited for.
var errEnded = errors.New("it has ended")

// begin starts a program, in its own process group like everything else.
func (l *Lab) begin(env []string, name string, args ...string) (*process, error) {
	// Not bound to a context: it is ended in order, by end.
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("read what %s says: %w", name, err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	p := &process{name: name, cmd: cmd, read: make(chan struct{}), more: make(chan struct{})}
	err = cmd.Start()
	if err = errors.Join(err, in.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), out.Close())
	}
	go p.follow(out)
	return p, nil
}

// follow keeps each line, and wakes whoever waits.
func (p *process) follow(out io.ReadCloser) {
	defer close(p.read)
	defer func() { _ = out.Close() }() // Only read.
	for lines := bufio.NewScanner(out); lines.Scan(); {
		p.mu.Lock()
		p.lines = append(p.lines, lines.Text())
		close(p.more)
		p.more = make(chan struct{})
		p.mu.Unlock()
	}
}

// mark is how many lines there were so far.
func (p *process) mark() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lines)
}

// await waits until the lines after the mark have all that is wanted.
func (p *process) await(ctx context.Context, mark int, wanted func(line string) bool, times int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for found := 0; ; {
		p.mu.Lock()
		lines, more := slices.Clone(p.lines[mark:]), p.more
		p.mu.Unlock()
		for _, line := range lines {
			if wanted(line) {
				found++
			}
		}
		mark += len(lines)
		if found >= times {
			return nil
		}
		select {
		case <-more:
		case <-p.read:
			if p.mark() == mark {
				return fmt.Errorf("wait for what %s says: %w\n%s", p.name, errEnded, p.last())
			}
		case <-ctx.Done():
			return fmt.Errorf("wait for what %s says: %w\n%s", p.name, ctx.Err(), p.last())
		}
	}
}

// last are the last lines.
func (p *process) last() string {
	const enough = 10
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines[max(0, len(p.lines)-enough):], "\n")
}

// end asks the program to end, as systemd and Ctrl-C do, and sees to it.
func (p *process) end() error {
	// It may have ended by itself, which is as good.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(grace, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	<-p.read
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("end %s: %w", p.name, err)
	}
	return nil
}

// hangup has a watch look at everything again.
func (p *process) hangup() error {
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("tell %s to look again: %w", p.name, err)
	}
	return nil
}

// tick is the kernel's unit of processor time in /proc, on all architectures
// that QEMU's hosts have.
const tick = 10 * time.Millisecond

// worked is how much processor time the program has had so far.
func (p *process) worked() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("ask for the processor time of %s: %w", p.name, err)
	}
	return processorTime(text)
}

// errProc is a file of /proc in a form that is not known.
var errProc = errors.New("/proc has another form than expected")

// processorTime is utime and stime of a /proc/PID/stat.
func processorTime(stat []byte) (time.Duration, error) {
	// The name in parentheses may hold anything.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const utime, stime = 11, 12
	if len(fields) <= stime {
		return 0, fmt.Errorf("%w: %q", errProc, stat)
	}
	user, err := strconv.ParseInt(string(fields[utime]), 10, 64)
	system, more := strconv.ParseInt(string(fields[stime]), 10, 64)
	if err = errors.Join(err, more); err != nil {
		return 0, fmt.Errorf("%w: %w", errProc, err)
	}
	return time.Duration(user+system) * tick, nil
}

// memory is how much memory the program has: "Rss" is all that it has mapped and
// touched, "Pss" counts what it shares in part.
func (p *process) memory(kind string) (float64, error) {
	value := field(fmt.Sprintf("/proc/%d/smaps_rollup", p.cmd.Process.Pid), kind)
	kilobytes, err := strconv.ParseFloat(strings.TrimSuffix(value, " kB"), 64)
	if err != nil {
		return 0, fmt.Errorf("ask for the memory of %s: %w: %w", p.name, errProc, err)
	}
	return kilobytes * 1024, nil
}
