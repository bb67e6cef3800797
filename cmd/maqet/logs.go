package main

import (
	"github.com/spf13/cobra"

	"github.com/maqet/maqet/driver/qemu"
)

func newLogs(a *app) *cobra.Command {
	var (
		request  qemu.LogRequest
		emulator bool
		shares   bool
	)
	cmd := &cobra.Command{
		Use:   "logs VM",
		Short: "Print what a guest wrote on its serial line",
		Long: `Print what a guest wrote on its serial line; the manifest must have
serial: {log: true}. With --qemu print what QEMU itself wrote, with --virtiofsd what
the processes wrote that share its folders by virtiofs.`,
		Example: "  maqet logs web --tail 20\n  maqet logs web -f\n  maqet logs web --qemu",
		Args:    exactArgs("a machine"), ValidArgsFunction: completeMachines(a, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := machineName(args[0])
			if err != nil {
				return err
			}
			if request.Tail < -1 {
				return usagef("--tail %d: must not be negative", request.Tail)
			}
			if emulator && shares {
				return usagef("--qemu and --virtiofsd are two logs: say one of them")
			}
			r, err := a.rooms()
			if err != nil {
				return err
			}
			if err := mustKnow(cmd.Context(), a, []string{name}, "read the logs of"); err != nil {
				return err
			}
			request.Kind = qemu.LogSerial
			switch {
			case emulator:
				request.Kind = qemu.LogQEMU
			case shares:
				request.Kind = qemu.LogVirtioFS
			}
			err = r.driver.Logs(cmd.Context(), name, request, a.env.out)
			if request.Follow && cmd.Context().Err() != nil {
				// Interrupting is how following ends: nothing needs to be said.
				return &outcomeError{code: exitInterrupted}
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&request.Follow, "follow", "f", false, "go on with what is written later, until interrupted")
	cmd.Flags().IntVar(&request.Tail, "tail", -1, "only the last `N` lines (-1: all)")
	cmd.Flags().BoolVar(&emulator, "qemu", false, "what QEMU itself wrote")
	cmd.Flags().BoolVar(&shares, "virtiofsd", false, "what shares its folders wrote")
	return cmd
}
