package manifest

import (
	"reflect"
	"slices"
	"strings"
)

// shapeKind is the form a value has in a manifest.
type shapeKind int

const (
	shapeObject   shapeKind = iota // a mapping with known keys
	shapeDict                      // a mapping with free keys
	shapeList                      // a sequence
	shapeText                      // a string
	shapeNumber                    // a whole number
	shapeBool                      // true or false
	shapeScalar                    // a string, number or boolean
	shapeQuantity                  // a size in bytes
	shapeDuration                  // a span of time
	shapeFree                      // a mapping of another program, or what it holds
)

// String is what a person calls the form.
func (k shapeKind) String() string {
	switch k {
	case shapeObject, shapeDict, shapeFree:
		return "a mapping"
	case shapeList:
		return "a list"
	case shapeText:
		return "a string"
	case shapeNumber:
		return "a whole number"
	case shapeBool:
		return "true or false"
	case shapeScalar:
		return "a string, a number, true or false"
	case shapeQuantity:
		return "a size such as 512Mi"
	case shapeDuration:
		return "a duration such as \"60s\""
	default:
		return "a value"
	}
}

// shape is what the walk knows of a Go type. It is made by reflection, so that
// a field exists in manifests exactly when it exists in the types.
type shape struct {
	kind   shapeKind
	fields []shapeField // of an object, in the order of the type
	elem   *shape       // of a list or dict
	// freeText is true where control characters do no harm, since the text
	// never reaches QEMU.
	freeText bool
	// mayBeEmpty is true where an empty string says something.
	mayBeEmpty bool
	// enum is the words a text may be; nil for any text.
	enum *enum
	// ignored are the keys of an object that are accepted and not read.
	ignored []string
	// refused are keys of an object that people try, with what to do instead.
	refused map[string]string
	// depth is how deep within a free mapping a value is; 0 is the mapping itself.
	depth int
}

// enum is the words a text may be. notYet are those that will mean something.
type enum struct {
	allowed, notYet []string
}

// enumOf is the enum of a string type, or nil.
func enumOf(t reflect.Type) *enum {
	switch t {
	case reflect.TypeFor[RestartPolicy]():
		return &enum{allowed: []string{string(RestartAlways), string(RestartOnFailure), string(RestartNever)}}
	case reflect.TypeFor[PowerState]():
		return &enum{allowed: []string{string(PowerRunning), string(PowerPaused), string(PowerStopped)}}
	case reflect.TypeFor[DiskFormat]():
		return &enum{allowed: []string{string(FormatQcow2), string(FormatRaw)}}
	case reflect.TypeFor[Bus]():
		return &enum{allowed: []string{string(BusVirtio), string(BusVirtioSCSI), string(BusNVMe), string(BusSATA), string(BusUSB)}}
	case reflect.TypeFor[CacheMode]():
		return &enum{allowed: []string{string(CacheWriteback), string(CacheNone), string(CacheWritethrough), string(CacheDirectSync), string(CacheUnsafe)}}
	case reflect.TypeFor[AIO]():
		return &enum{allowed: []string{string(AIOThreads), string(AIONative), string(AIOIOUring)}}
	case reflect.TypeFor[Discard]():
		return &enum{allowed: []string{string(DiscardIgnore), string(DiscardUnmap)}}
	case reflect.TypeFor[DetectZeroes]():
		return &enum{allowed: []string{string(DetectZeroesOff), string(DetectZeroesOn), string(DetectZeroesUnmap)}}
	case reflect.TypeFor[Media]():
		return &enum{allowed: []string{string(MediaDisk), string(MediaCDROM)}}
	case reflect.TypeFor[ShutdownMethod]():
		return &enum{allowed: []string{string(ShutdownGuestAgent), string(ShutdownACPI)}}
	case reflect.TypeFor[DiskPolicy]():
		return &enum{allowed: []string{string(DisksKeep), string(DisksDelete)}}
	case reflect.TypeFor[WatchdogModel]():
		return &enum{allowed: []string{string(WatchdogI6300ESB), string(WatchdogIB700)}}
	case reflect.TypeFor[WatchdogAction]():
		return &enum{allowed: []string{
			string(WatchdogReset), string(WatchdogShutdown), string(WatchdogPoweroff), string(WatchdogPause), string(WatchdogInjectNMI), string(WatchdogDebug), string(WatchdogNone),
		}}
	case reflect.TypeFor[SnapshotMethod]():
		return &enum{allowed: []string{string(SnapshotDisk), string(SnapshotFull)}}
	case reflect.TypeFor[Quiesce]():
		return &enum{allowed: []string{string(QuiesceRequired), string(QuiesceIfAvailable), string(QuiesceNever)}}
	case reflect.TypeFor[BackupMode]():
		return &enum{allowed: []string{string(BackupIncremental), string(BackupFull)}}
	case reflect.TypeFor[SnapshotPolicy]():
		return &enum{allowed: []string{string(SnapshotKeep), string(SnapshotDelete)}}
	default:
		return nil
	}
}

// ignores is true for a key that is accepted and not read.
func (s *shape) ignores(key string) bool { return slices.Contains(s.ignored, key) }

// shapeField is one key of an object.
type shapeField struct {
	name     string
	shape    *shape
	required bool
}

// find is the field of that key, or nil.
func (s *shape) find(key string) *shapeField {
	for i := range s.fields {
		if s.fields[i].name == key {
			return &s.fields[i]
		}
	}
	return nil
}

// names are the keys of an object.
func (s *shape) names() []string {
	names := make([]string, len(s.fields))
	for i, f := range s.fields {
		names[i] = f.name
	}
	return names
}

// shapeOf is the shape of t. It panics on a type no manifest can hold, which
// only a change of the types in this package can bring about.
func shapeOf(t reflect.Type) *shape {
	switch t {
	case reflect.TypeFor[Quantity]():
		return &shape{kind: shapeQuantity}
	case reflect.TypeFor[Duration]():
		return &shape{kind: shapeDuration}
	case reflect.TypeFor[Scalar]():
		return &shape{kind: shapeScalar}
	case reflect.TypeFor[Free]():
		return &shape{kind: shapeFree}
	default:
	}
	//nolint:exhaustive // every other kind is refused below.
	switch t.Kind() {
	case reflect.Pointer:
		return shapeOf(t.Elem())
	case reflect.Struct:
		return shapeOfStruct(t)
	case reflect.Map:
		return &shape{kind: shapeDict, elem: shapeOf(t.Elem())}
	case reflect.Slice:
		return &shape{kind: shapeList, elem: shapeOf(t.Elem())}
	case reflect.String:
		return &shape{kind: shapeText, enum: enumOf(t)}
	case reflect.Int:
		return &shape{kind: shapeNumber}
	case reflect.Bool:
		return &shape{kind: shapeBool}
	default:
		panic("manifest: no form in a manifest for " + t.String())
	}
}

func shapeOfStruct(t reflect.Type) *shape {
	s := &shape{kind: shapeObject}
	switch t {
	case reflect.TypeFor[VirtualMachine](), reflect.TypeFor[Snapshot](), reflect.TypeFor[Image]():
		s.ignored = []string{"status"} // what get prints
	case reflect.TypeFor[Metadata]():
		s.ignored = []string{"uid", "generation", "creationTimestamp", "resourceVersion", "managedFields"}
		s.refused = map[string]string{"namespace": "maqet has no namespaces: names are unique on a host; remove the key, and tell groups apart by labels"}
	default:
	}
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		field := shapeField{name: name, shape: shapeOf(f.Type), required: options == ""}
		if t == reflect.TypeFor[Metadata]() || t == reflect.TypeFor[SerialReadiness]() || t == reflect.TypeFor[CloudInit]() && name == "userData" {
			field.shape.setFreeText()
		}
		if t == reflect.TypeFor[Metadata]() && field.shape.kind == shapeDict {
			field.shape.elem.mayBeEmpty = true
		}
		s.fields = append(s.fields, field)
	}
	return s
}

func (s *shape) setFreeText() {
	s.freeText = true
	if s.elem != nil {
		s.elem.setFreeText()
	}
}
