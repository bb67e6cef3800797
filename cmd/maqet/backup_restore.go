package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/reconcile"
	"github.com/maqet/maqet/state"
)

func newBackupVerify(a *app) *cobra.Command {
	var (
		target  targetFlag
		restore bool
	)
	cmd := &cobra.Command{
		Use:   "verify VM [BACKUP]",
		Short: "Check a backup and all that it needs",
		Long: `Read a backup, the newest one unless one is named, and all those that it is the
difference to: each file's size, header and sha256, and what qemu-img check says of it.
With --restore its disks are also restored to a scratch folder in the target, compared,
and deleted there again, for which there must be room.

What is found broken is marked so in the target, and no further backup is the
difference to it: the next one copies everything.`,
		Example: "  maqet backup verify web\n  maqet backup verify web --restore",
		Args:    oneOrTwoArgs, ValidArgsFunction: completeBackups(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, id, err := backupArgs(args)
			if err != nil {
				return err
			}
			return verifyBackup(cmd.Context(), a, name, id, &target, restore)
		},
	}
	cmd.Flags().BoolVar(&restore, "restore", false, "also restore it to a scratch folder, and compare")
	target.add(cmd)
	return cmd
}

func verifyBackup(ctx context.Context, a *app, name, id string, target *targetFlag, restore bool) error {
	folder, err := target.of(ctx, a, name)
	if err != nil {
		return err
	}
	return withBackups(ctx, a, name, func(ctx context.Context, r *rooms, p *progress) error {
		run, found, err := r.driver.VerifyBackup(ctx, folder, name, id, restore, stages(p, name))
		if err != nil {
			return err
		}
		p.stop()
		for _, f := range found {
			fmt.Fprintf(a.env.out, "vm/%s backup %s: %s: %s\n", name, f.Run, f.File, f.Problem)
		}
		if len(found) > 0 {
			return &outcomeError{code: exitFailed}
		}
		words := "is what it should be"
		if restore {
			words += ", and restores to the same"
		}
		announce(a.env, name, "backup %s %s", run.ID, words)
		return nil
	})
}

// withBackups does something to the backups of a machine while nobody else does.
func withBackups(ctx context.Context, a *app, name string, do func(context.Context, *rooms, *progress) error) error {
	p := newProgress(a)
	defer p.stop()
	if _, err := a.engine(p.report); err != nil { // it makes the folders of locks
		return err
	}
	unlock, err := a.built.driver.LockBackups(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(ctx, a.built.timing.Backup)
	defer cancel()
	return do(ctx, a.built, p)
}

func newBackupRestore(a *app) *cobra.Command {
	var (
		target   targetFlag
		dir      string
		noSafety bool
	)
	cmd := &cobra.Command{
		Use:   "restore VM BACKUP",
		Short: "Set the disks of a stopped machine to a backup",
		Long: `Set the disks of a stopped machine to a backup, or make them again where they are
gone. The backup and all that it needs is verified before anything is touched. The
disks that are there are kept: those that maqet made among the kept ones (see maqet
disk orphans), others beside the new ones. --no-safety deletes them instead, once the
new disks are complete.

A restored disk is complete in itself and has no snapshots. The memory of a guest is
in no backup: it boots.

With --to-dir the disks are written to a folder, whatever the machine does. BACKUP is a
name of maqet backup list, or latest.`,
		Example: "  maqet stop web && maqet backup restore web latest\n  maqet backup restore web latest --to-dir /srv/look",
		Args:    exactArgs("a machine", "a backup"), ValidArgsFunction: completeBackups(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, id, err := backupArgs(args)
			if err != nil {
				return err
			}
			if dir != "" {
				return restoreBackupTo(cmd.Context(), a, name, id, &target, dir)
			}
			return restoreBackup(cmd.Context(), a, name, id, &target, !noSafety)
		},
	}
	cmd.Flags().StringVar(&dir, "to-dir", "", "write the disks to this `FOLDER` instead")
	cmd.Flags().BoolVar(&noSafety, "no-safety", false, "do not keep the disks as they are now")
	target.add(cmd)
	return cmd
}

func restoreBackupTo(ctx context.Context, a *app, name, id string, target *targetFlag, dir string) error {
	folder, err := target.of(ctx, a, name)
	if err != nil {
		return err
	}
	if dir, err = absolute(dir); err != nil {
		return err
	}
	return withBackups(ctx, a, name, func(ctx context.Context, r *rooms, p *progress) error {
		done, err := r.driver.RestoreBackupTo(ctx, name, folder, id, dir, stages(p, name))
		p.stop()
		for _, file := range done.Files {
			announce(a.env, name, "%s is of backup %s", file, done.Run.ID)
		}
		return err
	})
}

func restoreBackup(ctx context.Context, a *app, name, id string, target *targetFlag, safety bool) error {
	if err := mustKnow(ctx, a, []string{name}, restoreWord); err != nil {
		return err
	}
	folder, err := target.of(ctx, a, name)
	if err != nil {
		return err
	}
	return withBackups(ctx, a, name, func(ctx context.Context, r *rooms, p *progress) error {
		engine, err := a.engine(p.report)
		if err != nil {
			return err
		}
		var done driver.BackupRestored
		err = engine.Locked(ctx, name, func(ctx context.Context, v reconcile.View) error {
			done, err = r.driver.RestoreBackup(ctx, &v.Machine.Object, v.Observed, folder, id, safety, stages(p, name))
			return err
		})
		p.stop()
		printRestored(a.env, name, done)
		if err != nil {
			return err
		}
		message := "disks " + strings.Join(done.Disks, ", ") + " are those of backup " + done.Run.ID
		announce(a.env, name, "%s", message)
		if err := r.journal.Append(ctx, state.Event{
			Time: time.Now(), Machine: name, Type: state.EventNormal, Reason: state.EventBackupRestored, Message: message, Who: r.who,
		}); err != nil {
			r.log.WarnContext(ctx, "writing the journal failed", "vm", name, "err", err)
		}
		return nil
	})
}

const restoreWord = "restore"

// printRestored tells what a person has to know of disks besides those restored.
func printRestored(env environment, name string, done driver.BackupRestored) {
	for _, kept := range done.KeptAt {
		announce(env, name, "what was there before is in %s", kept)
	}
	if len(done.Untouched) > 0 {
		announce(env, name, "disks %s are not in the backup and stay as they are", strings.Join(done.Untouched, ", "))
	}
	if len(done.Skipped) > 0 {
		announce(env, name, "disks %s of the backup are not in the manifest; --to-dir writes them to a folder", strings.Join(done.Skipped, ", "))
	}
}

func oneOrTwoArgs(_ *cobra.Command, args []string) error {
	if len(args) < 1 || len(args) > 2 {
		return usagef("name a machine, and a backup or none for the newest")
	}
	return nil
}

// backupArgs are a machine and a backup; empty for none.
func backupArgs(args []string) (name, id string, err error) {
	if name, err = machineName(args[0]); err != nil || len(args) == 1 {
		return name, "", err
	}
	if args[1] != "latest" && !driver.ValidBackupRun(args[1]) {
		return "", "", usagef("%q cannot be the name of a backup; see: maqet backup list %s", args[1], name)
	}
	return name, args[1], nil
}

// completeBackups completes a machine, then one of its backups.
func completeBackups(a *app) cobra.CompletionFunc {
	machines := completeMachines(a, 1)
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) != 1 {
			return machines(cmd, args, prefix)
		}
		name, err := machineName(args[0])
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return remembered(cmd.Context(), a, func(tx *state.Tx) ([]string, error) {
			m, err := tx.Machine(name)
			if err != nil || m == nil || m.Object.Spec.Backup == nil {
				return nil, err
			}
			runs, err := a.built.driver.BackupRuns(m.Object.Spec.Backup.Target, name)
			if err != nil {
				return nil, err
			}
			names := []string{"latest"}
			for _, r := range runs {
				names = append(names, r.ID)
			}
			return names, nil
		}, nil, prefix)
	}
}
