package main

import (
	"bytes"
	"testing"

	"github.com/maqet/maqet/driver/qemu"
)

// TestExecOutcome_codesThatDoNotFit_areNoSuccess has the codes of guests that have more
// of them than a process here: those of Windows have 32 bits.
func TestExecOutcome_codesThatDoNotFit_areNoSuccess(t *testing.T) {
	for _, tc := range []struct {
		result qemu.ExecResult
		want   int
	}{
		{qemu.ExecResult{}, 0},
		{qemu.ExecResult{ExitCode: 3}, 3},
		{qemu.ExecResult{ExitCode: 0xff}, 255},
		{qemu.ExecResult{ExitCode: 0x101}, 1},
		{qemu.ExecResult{ExitCode: 0x100}, 255},
		{qemu.ExecResult{ExitCode: -0x40000000}, 255},
		{qemu.ExecResult{Signal: 15}, 143},
		{qemu.ExecResult{Signal: 128}, 255},
		{qemu.ExecResult{Signal: -0x3fffff80}, 255},
	} {
		env := environment{out: new(bytes.Buffer), err: new(bytes.Buffer)}
		if got := exitCode(t.Context(), execOutcome(env, "web", tc.result, nil)); got != tc.want {
			t.Errorf("%+v ends maqet with %d, want %d", tc.result, got, tc.want)
		}
	}
}
