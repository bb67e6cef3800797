package main

import (
	"context"
	"fmt"
	"sort"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
	"github.com/maqet/maqet/state"
)

// snapshotObject is a Snapshot as programs read it.
type snapshotObject struct {
	APIVersion string                   `json:"apiVersion"`
	Kind       manifest.Kind            `json:"kind"`
	Metadata   objectMeta               `json:"metadata"`
	Spec       manifest.SnapshotSpec    `json:"spec"`
	Status     reconcile.SnapshotStatus `json:"status"`
}

func getSnapshots(ctx context.Context, a *app, names []string, f format) error {
	all, err := snapshotObjects(ctx, a)
	if err != nil {
		return err
	}
	objects, err := pickSnapshots(all, names)
	if err != nil {
		return err
	}
	switch {
	case f.structured() && len(names) == 1:
		return f.write(a.env.out, objects[0])
	case f.structured():
		return f.write(a.env.out, listOf(objects))
	case f.kind == "name":
		for _, o := range objects {
			fmt.Fprintln(a.env.out, "snap/"+o.Metadata.Name)
		}
		return nil
	case len(objects) == 0:
		fmt.Fprintln(a.env.err, "No Snapshot objects here. Those taken by command are in: maqet snapshot list VM")
		return nil
	}
	rows := make([][]string, 0, len(objects))
	for _, o := range objects {
		rows = append(rows, []string{o.Metadata.Name, o.Spec.VirtualMachine, string(o.Spec.Method), string(o.Status.Phase), timeCell(o.Status.TakenAt), o.Status.Message})
	}
	printTable(a.env.out, []string{"NAME", "MACHINE", "METHOD", "PHASE", "TAKEN", "NOTE"}, rows)
	return nil
}

func timeCell(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

// snapshotObjects are all Snapshot objects with what their machines' disks say.
func snapshotObjects(ctx context.Context, a *app) ([]snapshotObject, error) {
	r, err := a.rooms()
	if err != nil {
		return nil, err
	}
	var stored []*state.Snapshot
	err = r.store.View(ctx, func(tx *state.Tx) error {
		var listErr error
		stored, listErr = tx.Snapshots()
		return listErr
	})
	if err != nil || len(stored) == 0 {
		return nil, err
	}
	views, err := look(ctx, a, nil, driver.DepthFull)
	if err != nil {
		return nil, err
	}
	found := map[string]reconcile.SnapshotStatus{}
	for _, v := range views {
		for _, s := range v.Status.Snapshots {
			found[v.Machine.Object.Metadata.Name+"/"+s.Name] = s
		}
	}
	objects := make([]snapshotObject, 0, len(stored))
	for _, s := range stored {
		status, ok := found[s.Object.Spec.VirtualMachine+"/"+s.Object.Metadata.Name]
		if !ok {
			status = reconcile.SnapshotStatus{Name: s.Object.Metadata.Name, Phase: reconcile.SnapshotPending, Declared: true}
		}
		objects = append(objects, snapshotObject{
			APIVersion: manifest.APIVersion, Kind: manifest.KindSnapshot,
			Metadata: objectMeta{Metadata: s.Object.Metadata, Generation: s.Generation, CreationTimestamp: s.Created},
			Spec:     s.Object.Spec, Status: status,
		})
	}
	sort.Slice(objects, func(i, j int) bool { return objects[i].Metadata.Name < objects[j].Metadata.Name })
	return objects, nil
}

func pickSnapshots(all []snapshotObject, names []string) ([]snapshotObject, error) {
	if len(names) == 0 {
		return all, nil
	}
	var picked []snapshotObject
	for _, name := range names {
		at := sort.Search(len(all), func(i int) bool { return all[i].Metadata.Name >= name })
		if at == len(all) || all[at].Metadata.Name != name {
			return nil, &reconcile.Error{Object: "snap/" + name, Op: "get", Err: reconcile.ErrNotFound, Hint: "see them with: maqet get snap"}
		}
		picked = append(picked, all[at])
	}
	return picked, nil
}
