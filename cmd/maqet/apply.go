package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
)

// applyFlags are the flags of apply and plan that say what is permitted.
type applyFlags struct {
	files        fileFlags
	prune        bool
	pruneAll     bool
	maxDeletions int
	owner        string
	allowRestart bool
	takeOver     bool
	// recreate are disks to make anew, as MACHINE/DISK.
	recreate []string
}

func (f *applyFlags) add(cmd *cobra.Command) {
	f.files.add(cmd)
	f.addPermissions(cmd)
	// It is no flag of watch: a word that costs a disk is said once.
	cmd.Flags().StringArrayVar(&f.recreate, "recreate-disk", nil, "make the disk `VM/DISK` anew of the image that its manifest names now, and keep the old one aside; may be given again")
}

// addPermissions adds what is permitted, without -f.
func (f *applyFlags) addPermissions(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.prune, "prune", false, "delete machines and snapshots of this owner that are no longer in the manifests; disks are kept")
	flags.BoolVar(&f.pruneAll, "prune-all", false, "let --prune delete everything of this owner")
	flags.IntVar(&f.maxDeletions, "max-deletions", 0, "refuse to prune more than `N` machines (0: no limit)")
	flags.StringVar(&f.owner, "owner", "", "`NAME` that owns the objects (default: the folder as given, made absolute)")
	flags.BoolVar(&f.allowRestart, "allow-restart", false, "restart machines whose changes need it")
	flags.BoolVar(&f.takeOver, "take-over", false, "take objects that another owner applied")
}

// check refuses flags that do nothing without another.
func (f *applyFlags) check() error {
	switch {
	case f.pruneAll && !f.prune:
		return usagef("--prune-all only widens --prune; give both")
	case f.maxDeletions != 0 && !f.prune:
		return usagef("--max-deletions only bounds --prune; give both")
	case f.maxDeletions < 0:
		return usagef("--max-deletions %d: must not be negative", f.maxDeletions)
	}
	_, err := f.disks()
	return err
}

// disks are those to make anew.
func (f *applyFlags) disks() ([]reconcile.DiskName, error) {
	var disks []reconcile.DiskName
	for _, text := range f.recreate {
		machine, disk, ok := strings.Cut(strings.TrimPrefix(text, "vm/"), "/")
		if !ok || manifest.ValidName(machine) != nil || manifest.ValidDeviceName(disk) != nil {
			return nil, usagef("--recreate-disk %s: name a machine and one of its disks, such as web/root", text)
		}
		disks = append(disks, reconcile.DiskName{Machine: machine, Disk: disk})
	}
	return disks, nil
}

func (f *applyFlags) options(roots []string) reconcile.ApplyOptions {
	owner := f.owner
	if owner == "" {
		owner = ownerOf(roots)
	}
	disks, err := f.disks()
	if err != nil {
		disks = nil // check has refused them already
	}
	return reconcile.ApplyOptions{
		Owner: owner, Recreate: disks, Prune: f.prune, PruneAll: f.pruneAll, MaxDeletions: f.maxDeletions, TakeOver: f.takeOver,
		Options: reconcile.Options{AllowRestart: f.allowRestart},
	}
}

// ownerOf is the owner of a set that names none: the folders it was read from.
// A file counts as its folder, so that applying one file of a folder is no
// change of owner. Standard input alone owns nothing: what it names keeps its owner.
func ownerOf(roots []string) string {
	var folders []string
	for _, root := range roots {
		if root == "-" {
			continue
		}
		if info, err := os.Stat(root); err == nil && !info.IsDir() {
			root = filepath.Dir(root)
		}
		if !slices.Contains(folders, root) {
			folders = append(folders, root)
		}
	}
	if len(folders) == 0 {
		return reconcile.OwnerStdin
	}
	slices.Sort(folders)
	return strings.Join(folders, ",")
}

// partOfFolder is a file that stands for its folder as owner without that folder being
// read: then what the file does not name may well be in another file. Empty when none.
func partOfFolder(roots []string) string {
	for _, root := range roots {
		if root == "-" || slices.Contains(roots, filepath.Dir(root)) {
			continue
		}
		if info, err := os.Stat(root); err == nil && !info.IsDir() {
			return root
		}
	}
	return ""
}

// absence refuses to prune for a file alone, and tells whether what is not in these
// roots is in no manifest of its owner.
func (f *applyFlags) absence(roots []string) (proved bool, err error) {
	part := partOfFolder(roots)
	switch {
	case f.owner != "" || part == "":
		return true, nil
	case f.prune:
		return false, usagef("--prune: %s is one file of its folder, and proves nothing about the others; give the folder %s, or --owner", part, filepath.Dir(part))
	default:
		return false, nil
	}
}

func newApply(a *app) *cobra.Command {
	var (
		flags   applyFlags
		planned string
		dryRun  bool
		wait    bool
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "apply -f PATH...",
		Short: "Make the host as the manifests say, once",
		Long: `Make the host as the manifests say, once. All files are checked first; with one
error in any of them nothing is touched. Then machines are created, started,
changed and stopped in parallel, and each step is printed when the running QEMU
confirms it.

A change that needs a restart is not made unless --allow-restart is given; it
stays pending and the exit code is 2. The same holds for a disk that was made of
another image than its manifest names now: it is made anew only with
--recreate-disk, for which the machine is stopped, and the old one is kept aside.

With --plan only that is done which maqet plan -o json has written to a file, given
the same manifests and flags. Where something else would be done now, because a
manifest, a machine or the host has changed, nothing is done at all.`,
		Example: `  maqet apply -f vms/
  maqet apply -f vms/ --wait           # also wait until the guests are Ready
  maqet apply -f vms/web.yaml --allow-restart
  maqet apply -f vms/ --recreate-disk web/root   # a fresh disk of the image it names now
  maqet plan -f vms/ -o json > plan.json; maqet apply -f vms/ --plan plan.json
  maqet apply -f vms/ --prune          # machines whose file is gone go too, disks stay`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if err := flags.check(); err != nil {
				return err
			}
			if planned != "" && dryRun {
				return usagef("--plan and --dry-run: say one of them")
			}
			if timeout < 0 {
				return usagef("--timeout %s: must not be negative", timeout)
			}
			set, err := loadForHost(ctx, a, &flags.files)
			if err != nil {
				return invalid(a, err)
			}
			proved, err := flags.absence(set.Roots)
			if err != nil {
				return err
			}
			set.Complete = set.Complete && proved
			opt := flags.options(set.Roots)
			if dryRun {
				return showPlan(ctx, a, set, opt, format{})
			}
			opt.Wait, opt.Timeout = wait, timeout
			if planned != "" {
				if opt.Planned, err = readPlan(planned); err != nil {
					return err
				}
			}
			return runApply(ctx, a, set, opt)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&planned, "plan", "", "do only what this `FILE` of maqet plan -o json says, or nothing")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show the plan and touch nothing")
	cmd.Flags().BoolVar(&wait, "wait", false, "also wait until machines are Ready")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after this long (0: each wait has its own limit)")
	return cmd
}

// loadForHost loads the manifests and asks the emulators about them.
func loadForHost(ctx context.Context, a *app, files *fileFlags) (*manifest.Set, error) {
	set, err := files.load(ctx, a)
	if err != nil {
		return nil, err
	}
	printWarnings(a.env, set.Warnings)
	return set, checkHost(ctx, a, set)
}

func runApply(ctx context.Context, a *app, set *manifest.Set, opt reconcile.ApplyOptions) error {
	p := newProgress(a)
	engine, err := a.engine(p.report)
	if err != nil {
		return err
	}
	p.begin(everything, fmt.Sprintf("looking at %s, or waiting for another maqet", describeCount(len(set.VMs()), "machine")))
	report, err := engine.Apply(ctx, set, opt)
	p.stop()
	if err != nil && len(report.Results) == 0 {
		return err
	}
	printReport(a, report)
	return reportOutcome(report, err)
}

// printReport prints what remains to be known after the steps were printed.
func printReport(a *app, report reconcile.Report) {
	acted := map[string]bool{}
	for _, r := range report.Results {
		printLeftovers(a.env, r)
		acted[r.Machine] = len(r.Steps) > 0
	}
	changed := printRecorded(a, report, acted)
	fmt.Fprintf(a.env.out, "%s: %d changed, %d unchanged\n", describeCount(len(report.Results), "machine"), changed, len(report.Results)-changed)
	left := 0
	for _, o := range report.Objects {
		if o.Action == reconcile.ActionLeft {
			left++
			fmt.Fprintf(a.env.out, "%s is in no manifest any more; it is left alone without --prune\n", o.Object)
		}
	}
	if report.Interrupted {
		fmt.Fprintln(a.env.err, interruptedText)
	}
}

// printRecorded tells of objects that were written without a step, such as
// changed labels, and counts the machines that changed in any way.
func printRecorded(a *app, report reconcile.Report, acted map[string]bool) int {
	for _, o := range report.Objects {
		quiet := o.Object.Kind == manifest.KindVirtualMachine && acted[o.Object.Name]
		if quiet || o.Action != reconcile.ActionConfigured && o.Action != reconcile.ActionCreated {
			continue
		}
		fmt.Fprintf(a.env.out, "%s %s\n", o.Object, o.Action)
		if o.Object.Kind == manifest.KindVirtualMachine {
			acted[o.Object.Name] = true
		}
	}
	changed := 0
	for _, yes := range acted {
		if yes {
			changed++
		}
	}
	return changed
}

// reportOutcome is the exit code of a report, in the order of exitCodesHelp.
func reportOutcome(report reconcile.Report, err error) error {
	code := exitDone
	switch {
	case report.Interrupted:
		code = exitInterrupted
	case report.Refused:
		code = exitRefused
	case report.Failed:
		code = exitFailed
	case report.Degraded:
		code = exitDegraded
	case report.Pending, errors.Is(err, context.DeadlineExceeded):
		code = exitPending
	case err != nil:
		return err
	}
	if code == exitDone {
		return nil
	}
	return &outcomeError{code: code}
}
