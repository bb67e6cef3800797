package state_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/state"
)

// The test binary runs itself as another process when this names a role.
const roleVariable = "STATE_TEST_ROLE"

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	if role == "" {
		goleak.VerifyTestMain(m)
		return
	}
	if err := act(role, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
}

// processContext bounds the life of a process.
func processContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 5*patience)
}

// act is the other process: it works on the store at args[0], locked by args[1].
func act(role string, args []string) error {
	if role == "journal" {
		return actJournal(args)
	}
	ctx, cancel := processContext()
	defer cancel()
	table := timing.Default()
	table.Lock = patience
	s := state.New(state.Config{
		Path: args[0], LockPath: args[1], Timing: table,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	switch role {
	case "mixed":
		lasts, err := time.ParseDuration(args[3])
		if err != nil {
			return err
		}
		return mixed(ctx, s, args[2], lasts)
	case "write":
		times, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return write(ctx, s, times)
	default:
		return fmt.Errorf("unknown role %q", role)
	}
}

// mixed writes and reads for so long, and prints how often, and how long a read took
// at most.
func mixed(ctx context.Context, s *state.Store, own string, lasts time.Duration) error {
	var slowest time.Duration
	times := 0
	for began := time.Now(); time.Since(began) < lasts; times++ {
		if err := s.Update(ctx, func(tx *state.Tx) error { return addTo(tx, "shared", own) }); err != nil {
			return err
		}
		begin := time.Now()
		if err := s.View(ctx, wantSum); err != nil {
			return err
		}
		slowest = max(slowest, time.Since(begin))
	}
	fmt.Fprintln(os.Stdout, times, slowest)
	return s.Close()
}

// write counts up two machines together, and prints each count that is committed.
func write(ctx context.Context, s *state.Store, times int) error {
	for range times {
		var count int
		err := s.Update(ctx, func(tx *state.Tx) error {
			if err := addTo(tx, "left", "right"); err != nil {
				return err
			}
			m, err := tx.Machine("left")
			count = m.Restarts
			return err
		})
		if err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, count)
	}
	return s.Close()
}

func (f *fixture) start(t *testing.T, role string, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	args = append([]string{f.path, f.lock}, args...)
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...) //nolint:gosec // this test binary itself.
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

func TestStore_manyProcesses_noChangeIsLostAndReadersAreQuick(t *testing.T) {
	processes, lasts := 8, time.Second
	if os.Getenv("MAQET_SOAK") != "" {
		processes, lasts = 32, time.Minute
	}
	f := newFixture(t)
	f.put(t, "shared")
	type other struct {
		cmd *exec.Cmd
		out *bufio.Scanner
	}
	var others []other
	for i := range processes {
		cmd, out := f.start(t, "mixed", fmt.Sprintf("own-%02d", i), lasts.String())
		others = append(others, other{cmd, out})
	}
	var slowest time.Duration
	all := 0
	for _, o := range others {
		if o.out.Scan() {
			times, text, _ := strings.Cut(o.out.Text(), " ")
			n, err := strconv.Atoi(times)
			took, durationErr := time.ParseDuration(text)
			if err := errors.Join(err, durationErr); err != nil {
				t.Error(err)
			}
			slowest, all = max(slowest, took), all+n
		}
		if err := o.cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d processes, %d changes, the slowest read took %v", processes, all, slowest)
	if slowest > time.Second {
		t.Errorf("a reader waited %v, want less than a second", slowest)
	}
	mustView(t, f.Store, func(tx *state.Tx) error {
		shared, err := tx.Machine("shared")
		if want := 2 + all; err != nil || shared.Restarts != want {
			t.Errorf("shared counts %d (%v), want %d", shared.Restarts, err, want)
		}
		return wantSum(tx)
	})
}

func TestUpdate_killedAtRandomMoments_staysConsistent(t *testing.T) {
	rounds := 12
	if os.Getenv("MAQET_SOAK") != "" {
		rounds = 200
	}
	f := newFixture(t)
	last := 0
	for round := range rounds {
		cmd, out := f.start(t, "write", "1000000")
		// The moment is after some commits and then somewhere within the next.
		for range 1 + rand.IntN(5) { //nolint:gosec // no secret.
			if !out.Scan() {
				t.Fatalf("round %d: the writer ended by itself: %v", round, cmd.Wait())
			}
			count, err := strconv.Atoi(strings.TrimSpace(out.Text()))
			if err != nil {
				t.Fatal(err)
			}
			last = count
		}
		<-time.After(time.Duration(rand.IntN(3000)) * time.Microsecond) //nolint:gosec // no secret.
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for out.Scan() {
			if count, err := strconv.Atoi(strings.TrimSpace(out.Text())); err == nil {
				last = count
			}
		}
		_ = cmd.Wait() // reports the kill
		mustView(t, f.Store, func(tx *state.Tx) error {
			left, errLeft := tx.Machine("left")
			right, errRight := tx.Machine("right")
			switch {
			case errLeft != nil || errRight != nil || len(tx.Warnings()) > 0:
				t.Errorf("round %d: %v %v %v", round, errLeft, errRight, tx.Warnings())
			case left.Restarts != right.Restarts || left.Restarts < last || left.Restarts > last+1:
				t.Errorf("round %d: left %d, right %d; %d was committed", round, left.Restarts, right.Restarts, last)
			}
			return nil
		})
	}
	if len(f.asides(t)) > 0 {
		t.Errorf("set aside: %v", f.asides(t))
	}
}
