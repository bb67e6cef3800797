// Package manifest says what is wanted: the types of manifests, strict loading
// of files and folders with positions, and the checks that need no host.
//
// # Basics
//
// Load reads files and folders into a Set of Objects. Every object is checked
// strictly: an unknown, doubled or wrongly-cased key, a wrong type, or a plain
// text that YAML readers disagree about is an Error with file, line, column,
// path and hint, and all faults of all files come at once, as Errors. What is
// valid comes resolved: absent keys that mean a fixed value are filled in, and
// relative paths are absolute (see Resolve). Admit then checks the objects
// against each other: addresses, ports and files that two machines claim, and
// snapshots without a machine.
//
// MarshalYAML and MarshalJSON write objects so that Load reads them back to the
// same values. PathsOf lists the fields a type has, for tables that must name
// each of them. Explain says what each field means; its texts are the comments of
// the Go types, which `make golden` collects in explain.json.
//
// # How a document is read
//
// One parse decides. The text of a file becomes node trees, one per document;
// each tree is walked beside the Go types, by reflection on their JSON tags; what
// fits is written down as JSON, and that checked document is decoded. So no
// second reader can see other values than those that were checked, and a field
// exists in manifests exactly when it exists in the types. Tests hold the result
// to what sigs.k8s.io/yaml reads from the same text.
//
// # Caveats
//
// A Set whose Complete is false proves no absence: nothing may be deleted
// because it is not in there. The package looks at no QEMU binary and at no
// image file; whether a machine type or an image exists is for others to say.
// Merge keys and explicit tags of YAML are refused. Aliases are followed, within
// a budget.
package manifest
