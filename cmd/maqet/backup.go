package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/reconcile"
)

func newBackup(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Make, list, check and restore backups",
		Args:  noSubcommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBackupNow(a), newBackupList(a), newBackupVerify(a), newBackupRestore(a))
	return cmd
}

func newBackupNow(a *app) *cobra.Command {
	var opt reconcile.BackupOptions
	cmd := &cobra.Command{
		Use:   "now VM",
		Short: "Make a backup of a machine",
		Long: `Copy the disks of a machine to the folder that spec.backup.target in its manifest
names. A running guest runs on; where it has an agent its file systems are frozen for
the moment that the backup is of, as spec.backup.quiesce says. Of a stopped machine
all is copied, and it cannot be started meanwhile.

After the first one only what has changed is copied, as far as QEMU kept track of it;
where it did not, everything is, and the command says why. Ctrl-C gives it up and
leaves nothing of it.

The folder is marked when it is first used. Another folder in its place, such as the
empty one below a disk that is not mounted, is refused; --accept-target takes it.`,
		Example: "  maqet backup now web\n  maqet backup now web --full",
		Args:    exactArgs("a machine"), ValidArgsFunction: completeMachines(a, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := machineName(args[0])
			if err != nil {
				return err
			}
			return backupNow(cmd.Context(), a, name, opt)
		},
	}
	cmd.Flags().BoolVar(&opt.Full, "full", false, "copy everything, not only what has changed")
	cmd.Flags().BoolVar(&opt.AcceptTarget, "accept-target", false, "take the target as it is, although it is not the folder that was used before")
	return cmd
}

func backupNow(ctx context.Context, a *app, name string, opt reconcile.BackupOptions) error {
	if err := mustKnow(ctx, a, []string{name}, "back up"); err != nil {
		return err
	}
	p := newProgress(a)
	defer p.stop()
	engine, err := a.engine(p.report)
	if err != nil {
		return err
	}
	opt.Tell = stages(p, name)
	report, err := engine.Backup(ctx, name, opt)
	if err != nil {
		return err
	}
	p.stop()
	announce(a.env, name, "%s", reconcile.BackupWords(report.Run))
	for _, id := range report.Expired {
		announce(a.env, name, "backup %s is deleted: it is kept no longer", id)
	}
	if report.Warning != "" {
		fmt.Fprintf(a.env.err, "vm/%s warning: %s\n", name, report.Warning)
	}
	return nil
}

// stages shows how far a backup is.
func stages(p *progress, name string) func(driver.BackupStage) {
	var now atomic.Pointer[driver.BackupStage]
	return func(s driver.BackupStage) {
		subject := "vm/" + name
		if last := now.Swap(&s); last == nil || last.What != s.What {
			p.end(subject)
			p.begin(subject, s.What)
			p.measure(subject, func() string { return stageWords(*now.Load()) })
		}
	}
}

// stageWords say how much of a stage is done.
func stageWords(s driver.BackupStage) string {
	if s.Total <= 0 {
		return ""
	}
	return fmt.Sprintf("%d%%", min(100*s.Done/s.Total, 100))
}

// targetFlag is the folder of backups that a command reads.
type targetFlag struct{ path string }

func (t *targetFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.path, "target", "", "read backups in this `FOLDER` (default: spec.backup.target)")
}

// of is the folder of a machine's backups.
func (t *targetFlag) of(ctx context.Context, a *app, name string) (string, error) {
	if t.path != "" {
		return absolute(t.path)
	}
	views, err := look(ctx, a, []string{name}, driver.DepthBrief)
	if err != nil {
		return "", err
	}
	if b := views[0].Machine.Object.Spec.Backup; b != nil {
		return b.Target, nil
	}
	return "", usagef("the manifest of vm/%s has no spec.backup; name the folder with --target", name)
}

// backupLine is one run as programs see it.
type backupLine struct {
	driver.BackupRun
	Bytes  int64  `json:"bytes"`
	Folder string `json:"folder"`
	Broken string `json:"broken,omitempty"`
}

func newBackupList(a *app) *cobra.Command {
	var (
		out    outputFlag
		target targetFlag
	)
	cmd := &cobra.Command{
		Use:   "list VM",
		Short: "List the backups of a machine",
		Long: `List the backups of a machine, oldest first, as the folder has them: also those of
an earlier machine of that name, of which UID tells. An incremental one can only be
read together with the one that it is the difference to, below PARENT.`,
		Example: "  maqet backup list web",
		Args:    exactArgs("a machine"), ValidArgsFunction: completeMachines(a, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := out.format()
			if err != nil {
				return err
			}
			name, err := machineName(args[0])
			if err != nil {
				return err
			}
			folder, err := target.of(cmd.Context(), a, name)
			if err != nil {
				return err
			}
			return listBackups(a, name, folder, f)
		},
	}
	out.add(cmd, "json", "yaml")
	target.add(cmd)
	return cmd
}

func listBackups(a *app, name, folder string, f format) error {
	r, err := a.rooms()
	if err != nil {
		return err
	}
	runs, err := r.driver.BackupRuns(folder, name)
	if err != nil {
		return err
	}
	lines := make([]backupLine, 0, len(runs))
	rows := make([][]string, 0, len(runs))
	for i := range runs {
		run := &runs[i]
		lines = append(lines, backupLine{*run, run.Bytes(), run.Folder, run.Broken})
		note := run.Why
		if run.Broken != "" {
			note = "BROKEN: " + run.Broken
		}
		by := "command"
		if !run.Scheduled.IsZero() {
			by = "schedule"
		}
		rows = append(rows, []string{
			run.ID, orDash(string(run.Type)), timeCell(run.At), orDash(run.Consistency), byteWords(run.Bytes()), by, orDash(run.Parent), orDash(shortID(run.UID)), note,
		})
	}
	if f.structured() {
		return f.write(a.env.out, lines)
	}
	if len(rows) == 0 {
		fmt.Fprintf(a.env.err, "vm/%s has no backups in %s\n", name, folder)
		return nil
	}
	printTable(a.env.out, []string{"BACKUP", "TYPE", "OF", "CONSISTENCY", "SIZE", "BY", "PARENT", "UID", "NOTE"}, rows)
	return nil
}

// shortID is the beginning of a uuid.
func shortID(uid string) string { return uid[:min(len(uid), 8)] }

// describeBackup tells when the last backup was made, and when the next one is.
func describeBackup(top fields, b *reconcile.BackupStatus) {
	if b == nil {
		return
	}
	last := "none yet"
	if b.Run != "" {
		last = fmt.Sprintf("%s, %s ago, %s, %s", b.Run, shortDuration(time.Since(b.At)), b.Type, byteWords(b.Size.Bytes()))
	}
	top.add("Last backup", last+", in "+b.Target)
	if !b.Next.IsZero() {
		top.add("Next backup", timeCell(b.Next))
	}
}
