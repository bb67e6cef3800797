package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Header is what the first bytes of an image file say. It is read without
// qemu-img, which for some formats opens further files that an image names.
type Header struct {
	// Format is qcow2, or another format that the bytes are known by, such as
	// vmdk; raw when they are known by none.
	Format string
	// Size is what a guest sees. Known of qcow2 only.
	Size int64
	// Backing is the backing file as a qcow2 names it, BackingFormat its format;
	// empty without one.
	Backing, BackingFormat string
	// DataFile tells that a qcow2 keeps its data in another file.
	DataFile bool
	// Encryption is LUKS or AES; empty without.
	Encryption string
	// Corrupt tells that QEMU has marked a qcow2 as damaged.
	Corrupt bool
}

// Qcow2 as docs/interop/qcow2.txt of QEMU lays it out.
const (
	qcowMagic         = "QFI\xfb"
	qcow2HeaderSize   = 72
	qcow3HeaderSize   = 104
	qcowCorrupt       = 1 << 1
	qcowExternalData  = 1 << 2
	extensionEnd      = 0
	extensionFormat   = 0xe2792aca
	maxBackingName    = 1023
	maxExtensions     = 64
	headerReadAtMost  = 1 << 21 // the largest cluster, which the header fits in
	headerReadAtFirst = 4096
)

// magics are what other formats than qcow2 begin with.
var magics = []struct{ text, format string }{
	{"KDMV", "vmdk"},
	{"COWD", "vmdk"},
	{"# Disk DescriptorFile", "vmdk"},
	{"vhdxfile", "vhdx"},
	{"conectix", "vpc"},
	{"<<< ", "vdi"},
	{"LUKS\xba\xbe", "luks"},
	{"QED\x00", "qed"},
	{"WithoutFreeSpace", "parallels"},
	{"WithouFreSpacExt", "parallels"},
	{"#!/bin/sh\n#V2.0 Format\n", "cloop"},
	{"Bochs Virtual HD Image", "bochs"},
	{"\xfd7zXZ\x00", "xz"},
	{"\x1f\x8b", "gzip"},
	{"\x28\xb5\x2f\xfd", "zstd"},
	{"BZh", "bzip2"},
	{"PK\x03\x04", "zip"},
}

// ReadHeader reads what an image file says of itself in its first bytes.
func ReadHeader(path string) (Header, error) {
	const op = "look at"
	f, err := os.Open(path) //nolint:gosec // an image that is named.
	if err != nil {
		return Header{}, fail(path, op, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	h, err := readHeaderOf(f)
	if err != nil {
		return Header{}, fail(path, op, err)
	}
	return h, nil
}

// readHeaderOf is ReadHeader for a file that is open.
func readHeaderOf(f io.ReaderAt) (Header, error) {
	head := make([]byte, headerReadAtFirst)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Header{}, err
	}
	head = head[:n]
	if !strings.HasPrefix(string(head), qcowMagic) {
		return Header{Format: formatOf(head)}, nil
	}
	return parseQcow(head, f)
}

// formatOf is the format that the first bytes are known by.
func formatOf(head []byte) string {
	for _, m := range magics {
		if strings.HasPrefix(string(head), m.text) {
			return m.format
		}
	}
	return "raw"
}

// parseQcow reads a qcow2's header. What is in it may be anything.
func parseQcow(head []byte, f io.ReaderAt) (Header, error) {
	if len(head) < qcow2HeaderSize {
		return Header{}, fmt.Errorf("the header of the qcow2 is cut off: %w", ErrDamaged)
	}
	version := binary.BigEndian.Uint32(head[4:])
	if version != 2 && version != 3 {
		return Header{Format: "qcow"}, nil
	}
	h := Header{Format: "qcow2", Size: int64(binary.BigEndian.Uint64(head[24:]))} //nolint:gosec // only shown
	length := qcow2HeaderSize
	if version == 3 {
		if len(head) < qcow3HeaderSize {
			return Header{}, fmt.Errorf("the header of the qcow2 is cut off: %w", ErrDamaged)
		}
		features := binary.BigEndian.Uint64(head[72:])
		h.Corrupt, h.DataFile = features&qcowCorrupt != 0, features&qcowExternalData != 0
		length = int(min(binary.BigEndian.Uint32(head[100:]), headerReadAtMost))
	}
	switch binary.BigEndian.Uint32(head[32:]) {
	case 0:
	case 1:
		h.Encryption = "AES"
	case 2:
		h.Encryption = "LUKS"
	default:
		h.Encryption = "an unknown method"
	}
	h.BackingFormat = backingFormat(f, int64(length))
	size := binary.BigEndian.Uint32(head[16:])
	if offset := binary.BigEndian.Uint64(head[8:]); offset != 0 {
		if size == 0 || size > maxBackingName || offset > headerReadAtMost {
			return Header{}, fmt.Errorf("the name of its backing file has %d bytes at %d: %w", size, offset, ErrDamaged)
		}
		name := make([]byte, size)
		if _, err := f.ReadAt(name, int64(offset)); err != nil {
			return Header{}, fmt.Errorf("read the name of its backing file: %w", err)
		}
		h.Backing = string(name)
	}
	return h, nil
}

// backingFormat looks for the format of the backing file among the header's
// extensions, which begin at an offset; empty when there is none.
func backingFormat(f io.ReaderAt, at int64) string {
	for range maxExtensions {
		var head [8]byte
		if _, err := f.ReadAt(head[:], at); err != nil {
			return ""
		}
		kind, size := binary.BigEndian.Uint32(head[:]), int64(binary.BigEndian.Uint32(head[4:]))
		switch {
		case kind == extensionEnd || size > headerReadAtFirst:
			return ""
		case kind == extensionFormat:
			name := make([]byte, size)
			if _, err := f.ReadAt(name, at+int64(len(head))); err != nil {
				return ""
			}
			return string(name)
		}
		at += int64(len(head)) + (size+7)/8*8
	}
	return ""
}

// BackingPath is the path of the backing file of the image at path; empty for
// one that has none, or that is named in another way than by a path.
func (h Header) BackingPath(path string) string {
	name := strings.TrimPrefix(h.Backing, "file:")
	switch {
	case name == "" || strings.HasPrefix(name, "json:"):
		return ""
	case filepath.IsAbs(name):
		return name
	default:
		return filepath.Join(filepath.Dir(path), name)
	}
}
