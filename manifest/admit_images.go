package manifest

import (
	"cmp"
	"fmt"
	"slices"
)

// images finds disks of images that nobody declares. Images that the host knows
// from elsewhere are there too.
func (a admission) images() Errors {
	var names []string
	for _, o := range a.objects {
		if o.Image != nil {
			names = append(names, o.Image.Metadata.Name)
		}
	}
	slices.Sort(names)
	var found Errors
	for n, o := range a.objects {
		if o.VM == nil || n < a.running {
			continue
		}
		for i, d := range o.VM.Spec.Disks {
			if _, ok := slices.BinarySearch(names, d.Image); d.Image == "" || ok {
				continue
			}
			path := fmt.Sprintf("spec.disks[%d].image", i)
			found = append(found, &Error{
				Position: o.place(path),
				Path:     path,
				Msg:      fmt.Sprintf("no image is named %s", quote(d.Image)),
				Conflict: []ObjectKey{o.Key()},
				Hint:     cmp.Or(didYouMean(d.Image, names), "declare it in the same set, as an object of kind Image"),
			})
		}
	}
	return found
}
