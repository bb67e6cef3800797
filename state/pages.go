package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
)

// What follows is bbolt's file format, version 2, as far as a reader needs it.
// A file is a row of pages. Pages 0 and 1 are metas: the valid one of the
// higher transaction names the root of a B+ tree. Its leaves hold the buckets,
// which are trees themselves or, when small, a page within the leaf.
const (
	pageSize       = 4096 // the databases of maqet have this on every host
	pageHeader     = 16
	elementHeader  = 16
	bucketHeader   = 16
	metaLength     = 64 // with its checksum, which is the last 8 bytes
	metaMagic      = 0xED0CDAED
	metaVersion    = 2
	flagBranch     = 0x01
	flagLeaf       = 0x02
	flagFreelist   = 0x10
	leafIsBucket   = 0x01
	firstDataPage  = 2
	manyFree       = 0xFFFF // the count is in the first entry instead
	freelistAbsent = 1<<64 - 1
	deepest        = 64 // far more than a tree of sound pages can be
)

// order is the byte order of a database: that of the host.
var order = binary.NativeEndian //nolint:gochecknoglobals // a constant in all but the word.

// pageID is a page's place in the file.
type pageID uint64

// meta is a meta page.
type meta struct {
	root     pageID
	freelist pageID
	high     pageID // all pages are below it
	txid     uint64
}

// element is one entry of a leaf or branch, within the file's bytes.
type element struct {
	key   []byte
	value []byte // of a leaf
	child pageID // of a branch
	// bucket tells that value is a bucket.
	bucket bool
}

// walker reads a whole database from memory. It trusts no length, number or
// reference, so no content makes it panic, run long or go round in circles;
// what it cannot follow it notes as a problem, and goes on with the rest.
type walker struct {
	data     []byte
	meta     meta
	visited  map[pageID]bool
	records  map[place][]byte
	problems []error
}

// errNoMeta is a file without a valid meta page: nothing in it can be found.
var errNoMeta = errors.New("no meta page is valid")

// walk reads all records of a database file. Without a valid meta page it fails.
func walk(data []byte) (*walker, error) {
	w := &walker{data: data, visited: map[pageID]bool{}, records: map[place][]byte{}}
	if err := w.chooseMeta(); err != nil {
		return nil, err
	}
	w.tree("", w.meta.root, bounds{}, 0, w.rootElement)
	w.freelist()
	return w, nil
}

func (w *walker) problem(format string, args ...any) {
	w.problems = append(w.problems, fmt.Errorf(format, args...))
}

// chooseMeta takes the valid meta of the higher transaction. An invalid one is
// a problem: it may have been the newer.
func (w *walker) chooseMeta() error {
	m0, err0 := w.readMeta(0)
	m1, err1 := w.readMeta(1)
	switch {
	case err0 != nil && err1 != nil:
		return fmt.Errorf("%w: %w; %w", errNoMeta, err0, err1)
	case err0 != nil:
		w.problem("%w: the last changes may be lost", err0)
		w.meta = m1
	case err1 != nil:
		w.problem("%w: the last changes may be lost", err1)
		w.meta = m0
	case m1.txid > m0.txid:
		w.meta = m1
	default:
		w.meta = m0
	}
	return nil
}

func (w *walker) readMeta(id pageID) (meta, error) {
	from := int(id)*pageSize + pageHeader //nolint:gosec // 0 or 1.
	if len(w.data) < from+metaLength {
		return meta{}, fmt.Errorf("meta page %d: the file ends before it", id)
	}
	raw := w.data[from : from+metaLength]
	sum := fnv.New64a()
	_, _ = sum.Write(raw[:metaLength-8])
	switch {
	case order.Uint32(raw) != metaMagic:
		return meta{}, fmt.Errorf("meta page %d: not a bbolt database", id)
	case order.Uint32(raw[4:]) != metaVersion:
		return meta{}, fmt.Errorf("meta page %d: format version %d", id, order.Uint32(raw[4:]))
	case order.Uint64(raw[metaLength-8:]) != sum.Sum64():
		return meta{}, fmt.Errorf("meta page %d: %w", id, errChecksum)
	case order.Uint32(raw[8:]) != pageSize:
		return meta{}, fmt.Errorf("meta page %d: pages of %d bytes", id, order.Uint32(raw[8:]))
	}
	return meta{
		root:     pageID(order.Uint64(raw[16:])),
		freelist: pageID(order.Uint64(raw[32:])),
		high:     pageID(order.Uint64(raw[40:])),
		txid:     order.Uint64(raw[48:]),
	}, nil
}

// page is the content of a page with its overflow, after its header is checked.
func (w *walker) page(id pageID) (raw []byte, flags uint16, err error) {
	if id < firstDataPage || id >= w.meta.high || id >= pageID(len(w.data)/pageSize) {
		return nil, 0, fmt.Errorf("page %d: outside of the file", id)
	}
	from := int(id) * pageSize //nolint:gosec // below the file's length.
	raw = w.data[from : from+pageSize]
	overflow := pageID(order.Uint32(raw[12:]))
	if named := pageID(order.Uint64(raw)); named != id {
		return nil, 0, fmt.Errorf("page %d: calls itself %d", id, named)
	}
	last := id + overflow
	if last >= w.meta.high || last >= pageID(len(w.data)/pageSize) {
		return nil, 0, fmt.Errorf("page %d: ends outside of the file", id)
	}
	for p := id; p <= last; p++ {
		if w.visited[p] {
			return nil, 0, fmt.Errorf("page %d: used twice", p)
		}
		w.visited[p] = true
	}
	return w.data[from : int(last+1)*pageSize], order.Uint16(raw[8:]), nil //nolint:gosec // below the file's length.
}

// bounds are the keys that a subtree may hold: from low, and below high when
// that is not nil.
type bounds struct{ low, high []byte }

// tree walks the tree below a page and hands each leaf's elements to visit.
func (w *walker) tree(bucket string, id pageID, within bounds, depth int, visit func(bucket string, e element)) {
	if depth > deepest {
		w.problem("bucket %q: page %d: the tree is too deep", bucket, id)
		return
	}
	raw, flags, err := w.page(id)
	if err != nil {
		w.problem("bucket %q: %w", bucket, err)
		return
	}
	elements, err := parse(raw, flags, within)
	if err != nil {
		w.problem("bucket %q: page %d: %w", bucket, id, err)
	}
	for i, e := range elements {
		if flags&flagLeaf != 0 {
			visit(bucket, e)
			continue
		}
		below := bounds{low: e.key, high: within.high}
		if i == 0 {
			below.low = within.low
		}
		if i+1 < len(elements) {
			below.high = elements[i+1].key
		}
		w.tree(bucket, e.child, below, depth+1, visit)
	}
}

// parse gives the elements of a leaf or branch. With an error come those
// elements that are sound.
func parse(raw []byte, flags uint16, within bounds) ([]element, error) {
	if flags != flagLeaf && flags != flagBranch {
		return nil, fmt.Errorf("neither leaf nor branch (flags %#x)", flags)
	}
	count := int(order.Uint16(raw[10:]))
	if pageHeader+count*elementHeader > len(raw) {
		return nil, fmt.Errorf("%d elements do not fit", count)
	}
	if flags == flagBranch && count == 0 {
		return nil, errors.New("a branch without elements")
	}
	var faults []error
	var last []byte
	elements := make([]element, 0, count)
	room := len(raw) - pageHeader - count*elementHeader
	for i := range count {
		e, ok := parseElement(raw[pageHeader+i*elementHeader:], flags)
		// Elements lie side by side. Those that overlap could together be far
		// larger than the file.
		if room -= len(e.key) + len(e.value); room < 0 {
			faults = append(faults, fmt.Errorf("the elements from %d on are larger than the page", i))
			break
		}
		switch {
		case !ok:
			faults = append(faults, fmt.Errorf("element %d lies outside of the page", i))
			continue
		case i > 0 && bytes.Compare(e.key, last) <= 0,
			flags == flagLeaf && bytes.Compare(e.key, within.low) < 0,
			within.high != nil && bytes.Compare(e.key, within.high) >= 0:
			faults = append(faults, fmt.Errorf("element %d is out of order", i))
		}
		last = e.key
		elements = append(elements, e)
	}
	return elements, errors.Join(faults...)
}

// parseElement reads the element whose header begins raw; its content lies
// behind all headers, at a distance from its own.
func parseElement(raw []byte, flags uint16) (element, bool) {
	first, second, third := uint64(order.Uint32(raw)), uint64(order.Uint32(raw[4:])), uint64(order.Uint32(raw[8:]))
	size := uint64(len(raw))
	if flags == flagBranch {
		pos, ksize := first, second
		if pos+ksize > size {
			return element{}, false
		}
		return element{key: raw[pos : pos+ksize], child: pageID(order.Uint64(raw[8:]))}, true
	}
	pos, ksize, vsize := second, third, uint64(order.Uint32(raw[12:]))
	if pos+ksize+vsize > size {
		return element{}, false
	}
	value := raw[pos+ksize : pos+ksize+vsize]
	return element{key: raw[pos : pos+ksize], value: value, bucket: first&leafIsBucket != 0}, true
}

// rootElement walks a bucket, which is all that the root tree holds.
func (w *walker) rootElement(_ string, e element) {
	name := string(e.key)
	if !e.bucket || len(e.value) < bucketHeader {
		w.problem("bucket %q: not a bucket", name)
		return
	}
	if root := pageID(order.Uint64(e.value)); root != 0 {
		w.tree(name, root, bounds{}, 0, w.record)
		return
	}
	inline := e.value[bucketHeader:]
	if len(inline) < pageHeader {
		w.problem("bucket %q: cut off", name)
		return
	}
	flags := order.Uint16(inline[8:])
	if flags != flagLeaf {
		w.problem("bucket %q: its inner page is no leaf (flags %#x)", name, flags)
		return
	}
	elements, err := parse(inline, flags, bounds{})
	if err != nil {
		w.problem("bucket %q: %w", name, err)
	}
	for _, e := range elements {
		w.record(name, e)
	}
}

// record notes one record.
func (w *walker) record(bucket string, e element) {
	at := place{bucket, string(e.key)}
	if e.bucket {
		w.problem("%s: a bucket, not a record", at)
		return
	}
	w.records[at] = e.value
}

// freelist checks that no page counts as free that is in use: bbolt would
// write over it.
func (w *walker) freelist() {
	if w.meta.freelist == freelistAbsent {
		w.problem("the list of free pages is absent")
		return
	}
	raw, flags, err := w.page(w.meta.freelist)
	if err != nil {
		w.problem("free pages: %w", err)
		return
	}
	if flags != flagFreelist {
		w.problem("free pages: page %d is no list (flags %#x)", w.meta.freelist, flags)
		return
	}
	count, entries := uint64(order.Uint16(raw[10:])), raw[pageHeader:]
	if count == manyFree {
		count, entries = order.Uint64(entries), entries[8:]
	}
	if count > uint64(len(entries)/8) {
		w.problem("free pages: %d entries do not fit", count)
		return
	}
	for i := range count {
		id := pageID(order.Uint64(entries[i*8:]))
		if id < firstDataPage || id >= w.meta.high || w.visited[id] {
			w.problem("free pages: page %d is in use, listed twice or outside of the file", id)
			return
		}
		w.visited[id] = true
	}
}
