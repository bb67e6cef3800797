package manifest

import (
	"cmp"
	"context"
	"io"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/maqet/maqet/internal/slowfs"
)

// defaultMaxFile bounds what a single file may ask of memory.
const defaultMaxFile = 16 << 20

// LoadOptions change how Load reads. The zero value is ready for use.
type LoadOptions struct {
	// Stdin is what the path "-" reads. Without it "-" is an error.
	Stdin io.Reader
	// Arch is the host's architecture as QEMU calls it, such as aarch64: what a
	// machine that names no emulator binary runs on. Empty: x86_64.
	Arch string
	// MaxFile is the most bytes a file may have. 0: 16 MiB.
	MaxFile int64
	// Files limits how long is waited for files that manifests name. Nil: without end.
	Files *slowfs.Files
}

// Load reads every manifest of the given files and folders. Folders are read
// recursively; "-" is standard input. The objects are strictly checked, each by
// itself, and resolved (see Resolve); Admit checks them against each other.
//
// The error is an Errors when files or their content are at fault, and then
// holds all faults of all files, sorted; the Set holds what was valid
// nonetheless, and its Complete is false. A path that does not exist and a
// folder that cannot be read are faults: absence needs proof. An empty folder
// gives an empty, complete Set, and the caller decides what that means. When
// ctx ends, its error is returned and no Set.
func Load(ctx context.Context, paths []string, opt LoadOptions) (*Set, error) {
	opt.Arch = cmp.Or(opt.Arch, "x86_64")
	opt.MaxFile = cmp.Or(opt.MaxFile, int64(defaultMaxFile))
	listing, err := listSources(ctx, paths)
	if err != nil {
		return nil, err
	}
	results, err := readAll(ctx, listing.sources, opt)
	if err != nil {
		return nil, err
	}
	return assemble(listing, results)
}

// readAll reads and checks the sources, as many at once as there are processors.
// The results are in the order of the sources.
func readAll(ctx context.Context, sources []source, opt LoadOptions) ([]fileResult, error) {
	shapes := newShapes()
	userData := func(c *CloudInit) ([]byte, error) { return c.ReadUserData(ctx, opt.Files) }
	results := make([]fileResult, len(sources))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, src := range sources {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			text, err := src.read(ctx, opt)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			results[i] = loadFile(src, text, err, opt.Arch, shapes, userData)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return results, nil
}

// assemble makes one set of what the files held.
func assemble(listing listing, results []fileResult) (*Set, error) {
	set := &Set{Roots: listing.roots}
	faults := listing.faults
	for i, r := range results {
		set.Files = append(set.Files, listing.sources[i].name)
		set.Objects = append(set.Objects, r.objects...)
		set.Warnings = append(set.Warnings, r.warnings...)
		faults = append(faults, r.faults...)
	}
	sortObjects(set.Objects)
	set.Objects, faults = dropDuplicates(set.Objects, faults)
	set.Warnings.Sort()
	faults.Sort()
	set.Complete = len(faults) == 0
	return set, faults.errorOrNil()
}

// dropDuplicates keeps the first object of each key, by position, and makes the
// others faults.
func dropDuplicates(objects []*Object, faults Errors) ([]*Object, Errors) {
	var first *Object
	objects = slices.DeleteFunc(objects, func(o *Object) bool {
		if first == nil || first.Key() != o.Key() {
			first = o
			return false
		}
		faults = append(faults, duplicateObject(o, first))
		return true
	})
	return objects, faults
}
