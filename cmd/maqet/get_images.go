package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
)

// imageObject is an Image as programs read it.
type imageObject struct {
	APIVersion string                `json:"apiVersion"`
	Kind       manifest.Kind         `json:"kind"`
	Metadata   objectMeta            `json:"metadata"`
	Spec       manifest.ImageSpec    `json:"spec"`
	Status     reconcile.ImageStatus `json:"status"`
}

func imageObjectOf(v reconcile.ImageView) imageObject {
	i := v.Image
	return imageObject{
		APIVersion: manifest.APIVersion, Kind: manifest.KindImage,
		Metadata: objectMeta{Metadata: i.Object.Metadata, Generation: i.Generation, CreationTimestamp: i.Created},
		Spec:     i.Object.Spec, Status: v.Status,
	}
}

func getImages(ctx context.Context, a *app, names []string, f format) error {
	engine, err := a.reader(nil)
	if err != nil {
		return err
	}
	views, err := engine.Images(ctx, names)
	if err != nil {
		return err
	}
	objects := make([]imageObject, 0, len(views))
	for _, v := range views {
		objects = append(objects, imageObjectOf(v))
	}
	switch {
	case f.structured() && len(names) == 1:
		return f.write(a.env.out, objects[0])
	case f.structured():
		return f.write(a.env.out, listOf(objects))
	case f.kind == "name":
		for _, o := range objects {
			fmt.Fprintln(a.env.out, "img/"+o.Metadata.Name)
		}
		return nil
	case len(objects) == 0:
		fmt.Fprintln(a.env.err, "No Image objects here. What is stored is in: maqet image list")
		return nil
	}
	wide := f.kind == "wide"
	header := []string{"NAME", "PHASE", "FORMAT", "SIZE", "DIGEST", "USED BY", "NOTE"}
	if wide {
		header = []string{"NAME", "PHASE", "FORMAT", "SIZE", "DIGEST", "USED BY", "SOURCE", "OWNER", "NOTE"}
	}
	rows := make([][]string, 0, len(views))
	for _, v := range views {
		rows = append(rows, imageRow(v, wide))
	}
	printTable(a.env.out, header, rows)
	return nil
}

func imageRow(v reconcile.ImageView, wide bool) []string {
	s, spec := v.Status, v.Image.Object.Spec
	size := "-"
	if s.Size > 0 {
		size = s.Size.String()
	}
	row := []string{
		v.Image.Object.Metadata.Name, string(s.Phase), string(spec.Format), size,
		orDash(manifest.ShortDigest(s.Digest)), orDash(strings.Join(s.UsedBy, ",")),
	}
	if wide {
		row = append(row, spec.Source, v.Image.Owner)
	}
	return append(row, imageNote(s))
}

// imageNote says in a few words what a person should know of an image.
func imageNote(s reconcile.ImageStatus) string {
	if s.Pull != nil && s.Pull.Total > 0 {
		return fmt.Sprintf("%d%%, %s", s.Pull.Done*100/s.Pull.Total, s.Message)
	}
	return s.Message
}

// describeImage tells everything about an image.
func describeImage(env environment, v reconcile.ImageView) {
	i, s := v.Image, v.Status
	f := fields{out: env.out}
	f.add("Name", "img/"+i.Object.Metadata.Name)
	f.add("Labels", joinMap(i.Object.Metadata.Labels))
	f.add("Annotations", joinMap(i.Object.Metadata.Annotations))
	f.add("Owner", i.Owner)
	f.add("Manifest", i.Source)
	f.add("Source", i.Object.Spec.Source)
	f.add("Format", string(i.Object.Spec.Format))
	f.add("Digest", s.Digest)
	f.add("Phase", string(s.Phase))
	if s.Size > 0 {
		f.add("Size", fmt.Sprintf("%s, takes %s on this host", s.Size, byteWords(s.Stored)))
	}
	f.add("Path", s.Path)
	if s.Pull != nil {
		f.add("Progress", sizeWords(*s.Pull))
	}
	f.add("Used by", strings.Join(s.UsedBy, ", "))
	f.add("Note", s.Message)
}
