package reconcile

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// guestChanges compares what is wanted with the running guest: three ways,
// since what the guest was launched with tells a changed manifest from drift.
// Only what needs a restart is in it; sizes of disks are compared elsewhere.
func guestChanges(want *manifest.VirtualMachineSpec, o *driver.Observed) []Change {
	if o.Guest == nil || o.Guest.Brief && o.Launched == nil {
		return nil
	}
	// Most of the time it is the same spec, and walking it is most of the work.
	same := o.Launched != nil && reflect.DeepEqual(o.Launched.Spec, *want)
	if same && o.Guest.Brief {
		return nil
	}
	c := comparison{obs: o, want: leaves(*want, "spec"), brief: o.Guest.Brief, known: o.Launched != nil}
	switch {
	case same:
		c.launched = c.want
	case c.known:
		c.launched = leaves(o.Launched.Spec, "spec")
	}
	c.items(want)
	c.values()
	slices.SortStableFunc(c.changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(c.order[a.Path], c.order[b.Path]), strings.Compare(a.Path, b.Path))
	})
	return c.changes
}

// comparison is one three-way comparison while it is made.
type comparison struct {
	obs            *driver.Observed
	want, launched map[string]leaf
	// known is false without a launch record: then only QMP speaks.
	known bool
	// brief is true when QEMU was asked for its run state only: the launch record
	// then stands for everything, and there is no drift to be seen.
	brief   bool
	changes []Change
	order   map[string]int
	// skip are the items whose values are not compared, by path; bare are those
	// that were added to the guest after its launch.
	skip, bare map[string]bool
}

func (c *comparison) add(order int, ch Change) {
	ch.Class = ClassRestart
	c.order[ch.Path] = order
	c.changes = append(c.changes, ch)
}

// items compares which disks, nics, filesystems and devices there are.
func (c *comparison) items(want *manifest.VirtualMachineSpec) {
	c.skip, c.bare, c.order = map[string]bool{}, map[string]bool{}, map[string]int{}
	guest := guestItems(c.obs.Guest)
	if c.brief {
		guest = specItems(&c.obs.Launched.Spec)
	}
	known := map[string]bool{}
	for _, m := range []map[string]leaf{c.want, c.launched} {
		for _, l := range m {
			list, isName := strings.CutSuffix(l.pattern, "[].name")
			list = strings.TrimPrefix(list, "spec.")
			if !isName || known[list+" "+l.item] {
				continue
			}
			known[list+" "+l.item], known[l.item] = true, true
			// Names are unique over all lists, and QEMU tells a card from a drive
			// by what it can do: one of the further devices may be either.
			_, there := guest[l.item]
			c.item(list, l.item, there)
		}
	}
	// QEMU's own default devices and those of extra arguments are nobody's drift.
	if !c.known || want.Emulator != nil && (want.Emulator.DefaultDevices || len(want.Emulator.ExtraArgs) > 0) {
		return
	}
	for name, list := range guest {
		if !known[name] {
			c.add(fieldOrder["spec."+list+"[].name"], Change{
				Path: "spec." + list + "[" + name + "]", From: "added to the running machine", Drift: true, Why: "it is in no manifest",
			})
		}
	}
}

// item compares whether one item is there.
func (c *comparison) item(list, name string, there bool) {
	path := "spec." + list + "[" + name + "]"
	_, wanted := c.want[path+".name"]
	_, launched := c.launched[path+".name"]
	order := fieldOrder["spec."+list+"[].name"]
	switch {
	case wanted && there:
		c.bare[path] = !launched
		return
	case wanted:
		c.add(order, Change{Path: path, To: describeItem(c.want, path), Drift: launched, Why: "it needs a new QEMU process"})
	case there && launched:
		why := "it needs a new QEMU process"
		if list == "disks" {
			why += "; the disk's data is kept"
		}
		c.add(order, Change{Path: path, From: describeItem(c.launched, path), Why: why})
	}
	c.skip[path] = true
}

// values compares the values of what both sides have.
func (c *comparison) values() {
	paths := maps.Clone(c.want)
	maps.Copy(paths, c.launched)
	for path, l := range paths {
		order, ok := fieldOrder[l.pattern]
		if !ok {
			continue
		}
		f := &fieldTable[order]
		item := itemPath(l)
		if !f.ofGuest() || c.skip[item] || strings.HasSuffix(l.pattern, "[].name") {
			continue
		}
		if ch, differs := c.value(f, path, l.item, c.known && !c.bare[item]); differs {
			c.add(order, ch)
		}
	}
	c.absentOnBothSides()
}

// absentOnBothSides finds drift of fields whose absence means a fixed value.
func (c *comparison) absentOnBothSides() {
	for i := range c.obs.Guest.Disks {
		name := c.obs.Guest.Disks[i].Name
		item := "spec.disks[" + name + "]"
		if _, wanted := c.want[item+".name"]; !wanted {
			continue
		}
		for order := range fieldTable {
			f := &fieldTable[order]
			key, ofDisk := strings.CutPrefix(f.Path, "spec.disks[]")
			if path := item + key; ofDisk && f.ofGuest() && f.Absent != "" && f.live != nil && !c.has(path) {
				if ch, differs := c.value(f, path, name, c.known && !c.bare[item]); differs {
					c.add(order, ch)
				}
			}
		}
	}
	if path := "spec.cpu.count"; !c.has(path) && c.known {
		order := fieldOrder[path]
		if ch, differs := c.value(&fieldTable[order], path, "", true); differs {
			c.add(order, ch)
		}
	}
}

func (c *comparison) has(path string) bool {
	_, want := c.want[path]
	_, launched := c.launched[path]
	return want || launched
}

// value compares one value: what QEMU says wins over what it was launched with.
func (c *comparison) value(f *Field, path, item string, known bool) (Change, bool) {
	want := cmp.Or(c.want[path].value, f.Absent)
	launched := cmp.Or(c.launched[path].value, f.Absent)
	asLaunched := known && f.equal(c.obs, want, launched)
	ch := Change{Path: path, From: launched, To: c.want[path].value, Why: "QEMU cannot change it while the guest runs"}
	if f.live != nil && want != "" && !c.brief {
		live, ok := f.live(c.obs, item)
		switch {
		case ok && f.equal(c.obs, want, live):
			return Change{}, false
		case ok && (!f.confirms || !asLaunched):
			ch.From, ch.Drift = live, asLaunched
			ch.To = want
			return ch, true
		}
	}
	if !known || asLaunched {
		return Change{}, false
	}
	if ch.To == "" {
		ch.Why += "; without the key QEMU decides"
	}
	return ch, true
}

// itemPath is the path of the list item that a leaf is in; empty outside of lists.
func itemPath(l leaf) string {
	if l.item == "" {
		return ""
	}
	end := strings.Index(l.path, "["+l.item+"]")
	if end < 0 {
		return ""
	}
	return l.path[:end+len(l.item)+2]
}

// describeItem says in a few words what an item is.
func describeItem(m map[string]leaf, path string) string {
	var words []string
	for _, key := range []string{".size", ".image", ".file", ".driver", ".path", ".model", ".format", ".media"} {
		if l, ok := m[path+key]; ok {
			words = append(words, l.value)
		}
	}
	if len(words) == 0 {
		return present
	}
	return strings.Join(words, " ")
}

// guestItems are the names of what QEMU has, each with the list it would be in.
func guestItems(g *driver.Guest) map[string]string {
	out := map[string]string{}
	for _, d := range g.Disks {
		out[d.Name] = "disks"
	}
	for _, n := range g.NICs {
		out[n.Name] = "nics"
	}
	for _, f := range g.Filesystems {
		out[f.Name] = "filesystems"
	}
	for _, d := range g.Devices {
		out[d.Name] = "devices"
	}
	return out
}

// specItems are the names of what a spec has, each with its list.
func specItems(s *manifest.VirtualMachineSpec) map[string]string {
	out := map[string]string{}
	for _, d := range s.Disks {
		out[d.Name] = "disks"
	}
	for _, n := range s.NICs {
		out[n.Name] = "nics"
	}
	for _, f := range s.Filesystems {
		out[f.Name] = "filesystems"
	}
	for _, d := range s.Devices {
		out[d.Name] = "devices"
	}
	return out
}

// imageSize is the virtual size of a disk; 0 when it is not known.
func imageSize(o *driver.Observed, name string) int64 {
	if o.Guest != nil {
		for _, d := range o.Guest.Disks {
			if d.Name == name && d.Size > 0 {
				return d.Size
			}
		}
	}
	if f, ok := o.Files[name]; ok && f.Exists {
		return f.Size
	}
	return 0
}

// ObjectChanges are the differences between two manifests of one machine, each
// with the price that it has for a running one. Old may be nil.
func ObjectChanges(old, now *manifest.VirtualMachine) []Change {
	if old == nil {
		return nil
	}
	type parts struct {
		Metadata manifest.Metadata           `json:"metadata"`
		Spec     manifest.VirtualMachineSpec `json:"spec"`
	}
	before, after := leaves(parts{old.Metadata, old.Spec}, ""), leaves(parts{now.Metadata, now.Spec}, "")
	all := maps.Clone(before)
	maps.Copy(all, after)
	none := &driver.Observed{}
	var changes []Change
	for path, l := range all {
		order, ok := fieldOrder[strings.TrimPrefix(l.pattern, ".")]
		if !ok {
			continue
		}
		f := &fieldTable[order]
		if f.equal(none, after[path].value, before[path].value) {
			continue
		}
		changes = append(changes, Change{
			Path: strings.TrimPrefix(path, "."), From: f.show(before[path].value), To: f.show(after[path].value), Class: f.Class,
		})
	}
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return changes
}
