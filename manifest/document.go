package manifest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFaults is how many faults of one file are told; more of them help nobody.
const maxFaults = 100

// The words of lists and of kustomize's own file.
const (
	listKind       = "List"
	listAPIVersion = "v1"
	kustomizeGroup = "kustomize.config.k8s.io/"
)

// fileResult is what one file held.
type fileResult struct {
	objects  []*Object
	faults   Errors
	warnings Errors
}

// shapes are the shapes of the kinds.
type shapes struct {
	machine, snapshot, image *shape
}

func newShapes() shapes {
	return shapes{
		machine:  shapeOf(reflect.TypeFor[VirtualMachine]()),
		snapshot: shapeOf(reflect.TypeFor[Snapshot]()),
		image:    shapeOf(reflect.TypeFor[Image]()),
	}
}

// fileLoader reads the documents of one file.
type fileLoader struct {
	fileResult
	src    source
	text   []byte // of the file, as it was parsed
	arch   string
	shapes shapes
	items  int // objects met, valid or not
	// readUserData reads what a machine names.
	readUserData userDataReader
}

// userDataReader reads the user-data of a resolved machine.
type userDataReader func(*CloudInit) ([]byte, error)

// loadFile checks the text of one file; readErr is why it could not be read.
func loadFile(src source, text []byte, readErr error, arch string, shapes shapes, userData userDataReader) fileResult {
	l := &fileLoader{src: src, arch: arch, shapes: shapes, readUserData: userData}
	if readErr != nil {
		l.faults = Errors{{Position: Position{File: src.name}, Msg: "cannot be read", Hint: "check the file and its permissions", Err: readErr}}
		return l.fileResult
	}
	text, fault := cleanText(src.name, text)
	if fault != nil {
		l.faults = Errors{fault}
		return l.fileResult
	}
	text = plainJSON(text)
	l.text = text
	docs, fault := parseDocuments(src.name, text)
	for _, doc := range docs {
		l.document(doc)
	}
	if fault != nil {
		l.faults = append(l.faults, fault)
	}
	if l.items == 0 && len(l.faults) == 0 {
		l.warnings = append(l.warnings, &Error{
			Position: Position{File: src.name}, Warning: true,
			Msg: "the file holds no objects", Hint: "remove it, or list it in " + ignoreFile,
		})
	}
	l.faults.Sort()
	l.faults = capFaults(l.faults)
	return l.fileResult
}

// capFaults cuts the faults of a file to a number a person can read.
func capFaults(faults Errors) Errors {
	if len(faults) <= maxFaults {
		return faults
	}
	rest := len(faults) - maxFaults
	return append(slices.Clip(faults[:maxFaults]), &Error{
		Position: faults[maxFaults].Position,
		Msg:      fmt.Sprintf("and %d more faults in this file", rest),
		Hint:     fmt.Sprintf("only the first %d are shown", maxFaults),
	})
}

func (l *fileLoader) fault(at *yaml.Node, path, msg, hint string) {
	l.faults = append(l.faults, &Error{Position: l.position(at), Path: path, Msg: msg, Hint: hint})
}

func (l *fileLoader) position(n *yaml.Node) Position {
	return Position{l.src.name, n.Line, n.Column}
}

// document reads one document. An empty one is nothing.
func (l *fileLoader) document(doc *yaml.Node) {
	if len(doc.Content) == 0 {
		return
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" && root.Value == "" {
		return
	}
	l.items++
	l.object(root, false)
}

// object reads one object, or the list that a document is. In a list, n may be
// an alias.
func (l *fileLoader) object(n *yaml.Node, inList bool) {
	n = target(n)
	if n.Kind != yaml.MappingNode {
		l.fault(n, "", "an object is a mapping with apiVersion, kind, metadata and spec, not "+describe(n), "")
		return
	}
	version, kind := lookup(n, "apiVersion"), lookup(n, "kind")
	if l.foreign(n, version, kind) {
		return
	}
	if kind.Value == listKind && (version.Value == listAPIVersion || version.Value == APIVersion) {
		if inList {
			l.fault(n, "", "a List within a List", "put the items into the outer one")
			return
		}
		l.list(n)
		return
	}
	if version.Value != APIVersion {
		l.fault(version, "apiVersion", fmt.Sprintf("%s is no apiVersion of maqet", quote(version.Value)), fmt.Sprintf("use %q; keep files of other tools away with %s", APIVersion, ignoreFile))
		return
	}
	switch Kind(kind.Value) {
	case KindVirtualMachine:
		l.machine(n)
	case KindSnapshot:
		l.snapshot(n)
	case KindImage:
		l.image(n)
	default:
		l.unknownKind(kind)
	}
}

// foreign tells what a document is that is no object of maqet.
func (l *fileLoader) foreign(n, version, kind *yaml.Node) bool {
	base := filepath.Base(l.src.name)
	kustomize := version != nil && strings.HasPrefix(version.Value, kustomizeGroup) ||
		version == nil && kind == nil && (base == "kustomization.yaml" || base == "kustomization.yml")
	if kustomize {
		l.fault(n, "", "this is a file of kustomize, which maqet does not run",
			"give maqet what it builds: kustomize build "+filepath.Dir(l.src.name)+" | maqet apply -f -")
		return true
	}
	if version == nil && kind == nil {
		l.fault(n, "", "no object of maqet: apiVersion and kind are missing",
			fmt.Sprintf("begin with apiVersion: %s and kind: VirtualMachine; keep other files away with %s", APIVersion, ignoreFile))
		return true
	}
	missing := false
	for _, key := range []struct {
		name string
		node *yaml.Node
		hint string
	}{
		{"apiVersion", version, "add apiVersion: " + APIVersion},
		{"kind", kind, "add kind: VirtualMachine, Snapshot or Image"},
	} {
		switch {
		case key.node == nil:
			l.fault(n, key.name, "required key is missing", key.hint)
			missing = true
		case key.node.Kind != yaml.ScalarNode || key.node.Tag != "!!str":
			l.fault(key.node, key.name, "must be a string, not "+describe(key.node), key.hint)
			missing = true
		}
	}
	return missing
}

func (l *fileLoader) unknownKind(kind *yaml.Node) {
	known := []string{string(KindVirtualMachine), string(KindSnapshot), string(KindImage)}
	msg, hint := quote(kind.Value)+" is no kind", didYouMean(kind.Value, append(known, listKind))
	if hint == "" {
		hint = "use VirtualMachine, Snapshot or Image"
	}
	l.fault(kind, "kind", msg, hint)
}

// list reads the items of a List. Its own metadata are those of a query and
// mean nothing.
func (l *fileLoader) list(n *yaml.Node) {
	w := &walker{file: l.src.name}
	seen := keySet{}
	var items *yaml.Node
	guess := "" // the key that was meant by an unknown one
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, ok := w.key(n.Content[i], seen)
		if !ok {
			continue
		}
		switch key {
		case "apiVersion", "kind", "metadata":
		case "items":
			items = target(n.Content[i+1])
		default:
			guess = cmp.Or(guess, w.unknownKey(n.Content[i], key, []string{"apiVersion", "kind", "metadata", "items"}))
		}
	}
	l.faults = append(l.faults, w.faults...)
	switch {
	case items == nil && guess == "items":
	case items == nil:
		l.fault(n, "items", "required key is missing", "a List has items, if only []")
	case items.Kind != yaml.SequenceNode:
		l.fault(items, "items", "must be a list, not "+describe(items), "")
	default:
		var spent aliasBudget
		for _, item := range items.Content {
			l.items++
			if item.Kind == yaml.AliasNode && !spent.take(countNodes(target(item))) {
				l.fault(item, "items", aliasBudgetMsg, aliasBudgetHint)
				return
			}
			l.object(item, true)
		}
	}
}

// machine reads a VirtualMachine.
func (l *fileLoader) machine(n *yaml.Node) {
	w := &walker{file: l.src.name}
	var vm VirtualMachine
	if !l.decode(w, n, l.shapes.machine, &vm) {
		return
	}
	v := &validator{file: l.src.name, root: n, broken: w.broken, faults: w.faults}
	v.machine(&vm, l.arch)
	if len(v.faults) > 0 {
		l.faults = append(l.faults, v.faults...)
		return
	}
	if l.userData(n, &vm) {
		l.add(n, &Object{VM: Resolve(&vm, l.src.dir)}, machinePlaces(&vm))
	}
}

// snapshot reads a Snapshot.
func (l *fileLoader) snapshot(n *yaml.Node) {
	w := &walker{file: l.src.name}
	var snap Snapshot
	if !l.decode(w, n, l.shapes.snapshot, &snap) {
		return
	}
	v := &validator{file: l.src.name, root: n, broken: w.broken, faults: w.faults}
	v.snapshot(&snap)
	if len(v.faults) > 0 {
		l.faults = append(l.faults, v.faults...)
		return
	}
	l.add(n, &Object{Snapshot: ResolveSnapshot(&snap)}, []string{"metadata.name", "spec.virtualMachine"})
}

// image reads an Image.
func (l *fileLoader) image(n *yaml.Node) {
	w := &walker{file: l.src.name}
	var img Image
	if !l.decode(w, n, l.shapes.image, &img) {
		return
	}
	v := &validator{file: l.src.name, root: n, broken: w.broken, faults: w.faults}
	v.image(&img)
	if len(v.faults) > 0 {
		l.faults = append(l.faults, v.faults...)
		return
	}
	l.add(n, &Object{Image: ResolveImage(&img, l.src.dir)}, []string{"metadata.name", "spec.source"})
}

// decode walks the document and fills into with all of it that is well-formed.
// Decoding what the walk wrote, rather than the file a second time, leaves one
// reader to decide what a manifest says.
func (l *fileLoader) decode(w *walker, n *yaml.Node, s *shape, into any) bool {
	w.walk(n, s)
	if w.isHopeless() || w.bomb {
		l.faults = append(l.faults, w.faults...)
		return false
	}
	if err := json.Unmarshal(w.out, into); err != nil {
		l.faults = append(l.faults, w.faults...)
		l.faults = append(l.faults, &Error{Position: l.position(n), Msg: "cannot be decoded", Hint: "this is a fault of maqet; please report it", Err: err})
		return false
	}
	return true
}

// add keeps a valid object, with the positions admission will want.
func (l *fileLoader) add(n *yaml.Node, o *Object, places []string) {
	o.Position = l.position(n)
	o.places = make(map[string]Position, len(places))
	for _, path := range places {
		if at := locate(n, path); at != nil {
			o.places[path] = l.position(at)
		}
	}
	digest, err := digestOf(o.value())
	if err != nil {
		l.faults = append(l.faults, &Error{Position: o.Position, Msg: "cannot be written", Hint: "this is a fault of maqet; please report it", Err: err})
		return
	}
	o.Digest = digest
	l.objects = append(l.objects, o)
}

// machinePlaces are the fields of a machine that admission and the host's check
// speak of.
func machinePlaces(vm *VirtualMachine) []string {
	places := []string{"metadata.name"}
	for i, d := range vm.Spec.Disks {
		places = append(places, fmt.Sprintf("spec.disks[%d]", i))
		if d.File != "" {
			places = append(places, fmt.Sprintf("spec.disks[%d].file", i))
		}
		if d.Image != "" {
			places = append(places, fmt.Sprintf("spec.disks[%d].image", i))
		}
		if d.NBD != nil {
			places = append(places, fmt.Sprintf("spec.disks[%d].nbd", i))
		}
	}
	for i, nic := range vm.Spec.NICs {
		places = append(places, fmt.Sprintf("spec.nics[%d]", i), fmt.Sprintf("spec.nics[%d].model", i))
		if nic.MAC != "" {
			places = append(places, fmt.Sprintf("spec.nics[%d].mac", i))
		}
	}
	for i := range vm.Spec.Filesystems {
		path := fmt.Sprintf("spec.filesystems[%d]", i)
		places = append(places, path, path+".path", path+".driver", path+".readOnly")
	}
	for _, f := range forwardsOf(vm) {
		places = append(places, f.path)
	}
	return append(places, hostPlaces(vm)...)
}

// hostPlaces are the fields that only a host can judge.
func hostPlaces(vm *VirtualMachine) []string {
	var places []string
	if e := vm.Spec.Emulator; e != nil {
		places = append(places, "spec.emulator.binary", "spec.emulator.runAs")
		for i := range e.Accelerators {
			places = append(places, fmt.Sprintf("spec.emulator.accelerators[%d]", i))
		}
	}
	if vm.Spec.Machine != nil {
		places = append(places, "spec.machine.type", "spec.machine.hotplugPorts")
	}
	if vm.Spec.CloudInit != nil {
		places = append(places, "spec.cloudInit")
	}
	if vm.Spec.Firmware != nil {
		places = append(places, "spec.firmware.uefi", "spec.firmware.secureBoot")
	}
	if vm.Spec.TPM != nil {
		places = append(places, "spec.tpm")
	}
	if vm.Spec.Watchdog != nil {
		places = append(places, "spec.watchdog.model")
	}
	if vm.Spec.CPU != nil {
		places = append(places, "spec.cpu.model", "spec.cpu.count")
	}
	if b := vm.Spec.Boot; b != nil && b.Kernel != nil {
		places = append(places, "spec.boot.kernel.image", "spec.boot.kernel.initrd")
	}
	for i := range vm.Spec.Devices {
		places = append(places, fmt.Sprintf("spec.devices[%d].driver", i))
	}
	return places
}
