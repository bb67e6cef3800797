package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maqet/maqet/manifest"
)

// strangers make images as one may get them from anywhere, with what they are
// refused for; empty for those that are taken.
var strangers = []struct {
	name   string
	format manifest.DiskFormat
	make   func(t *testing.T, path string)
	want   string
}{
	{"a qcow2", manifest.FormatQcow2, func(t *testing.T, path string) { qemuImg(t, "create", "-q", "-f", "qcow2", path, "1M") }, ""},
	{"an old qcow2", manifest.FormatQcow2, func(t *testing.T, path string) {
		qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "compat=0.10", path, "1M")
	}, ""},
	{"large clusters", manifest.FormatQcow2, func(t *testing.T, path string) {
		qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", path, "1M")
	}, ""},
	{"packed by zstd inside", manifest.FormatQcow2, func(t *testing.T, path string) {
		qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "compression_type=zstd", path, "1M")
	}, ""},
	{"raw", manifest.FormatRaw, func(t *testing.T, path string) { write(t, path, bytes.Repeat([]byte{7}, 1<<20)) }, ""},
	{"raw of odd size", manifest.FormatRaw, func(t *testing.T, path string) { write(t, path, bytes.Repeat([]byte{7}, 1000)) }, ""},

	{"a raw that is qcow2", manifest.FormatRaw, func(t *testing.T, path string) { qemuImg(t, "create", "-q", "-f", "qcow2", path, "1M") }, "it should be raw and is qcow2"},
	{"a qcow2 that is raw", manifest.FormatQcow2, func(t *testing.T, path string) { write(t, path, make([]byte, 1<<20)) }, "it should be qcow2 and is raw"},
	{"vmdk", manifest.FormatRaw, func(t *testing.T, path string) { qemuImg(t, "create", "-q", "-f", "vmdk", path, "1M") }, "it should be raw and is vmdk"},
	{"vmdk of another file", manifest.FormatRaw, func(t *testing.T, path string) {
		write(t, path, []byte("# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\nRW 1 FLAT \"/etc/shadow\" 0\n"))
	}, "it should be raw and is vmdk"},
	{"vdi", manifest.FormatQcow2, func(t *testing.T, path string) { qemuImg(t, "create", "-q", "-f", "vdi", path, "1M") }, "it should be qcow2 and is vdi"},
	{"vhdx", manifest.FormatRaw, func(t *testing.T, path string) { qemuImg(t, "create", "-q", "-f", "vhdx", path, "8M") }, "it should be raw and is vhdx"},
	{"qed with backing", manifest.FormatRaw, func(t *testing.T, path string) { qemuImg(t, "create", "-q", "-f", "qed", path, "1M") }, "it should be raw and is qed"},
	{"xz by another name", manifest.FormatRaw, func(t *testing.T, path string) { write(t, path, []byte("\xfd7zXZ\x00 and so on")) }, "let the source end in .xz"},
	{"backing file", manifest.FormatQcow2, func(t *testing.T, path string) {
		qemuImg(t, "create", "-q", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", path, "1M")
	}, `it names the backing file "/etc/shadow"`},
	{"backing file in JSON", manifest.FormatQcow2, func(t *testing.T, path string) {
		qemuImg(t, "create", "-q", "-f", "qcow2", "-u", "-b", `json:{"driver":"raw","file":{"driver":"file","filename":"/etc/shadow"}}`, "-F", "raw", path, "1M")
	}, `it names the backing file "json:`},
	{"external data file", manifest.FormatQcow2, func(t *testing.T, path string) {
		qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "data_file="+strings.ReplaceAll(path, ",", ",,")+".data", path, "1M")
	}, "it keeps its data in an external data file"},
	{"external data file that is gone", manifest.FormatQcow2, func(t *testing.T, path string) {
		qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "data_file="+strings.ReplaceAll(path, ",", ",,")+".data", path, "1M")
		if err := os.Remove(path + ".data"); err != nil {
			t.Fatal(err)
		}
	}, "it keeps its data in an external data file"},
	// Made by hand: qemu-img measures the processor for a key, and fails on a busy one.
	{"LUKS within qcow2", manifest.FormatQcow2, func(t *testing.T, path string) {
		qemuImg(t, "create", "-q", "-f", "qcow2", path, "1M")
		patch(t, path, 32, binary.BigEndian.AppendUint32(nil, 2))
	}, "it is encrypted (LUKS)"},
	{"AES within qcow2", manifest.FormatQcow2, func(t *testing.T, path string) {
		qemuImg(t, "create", "-q", "-f", "qcow2", path, "1M")
		patch(t, path, 32, binary.BigEndian.AppendUint32(nil, 1))
	}, "it is encrypted (AES)"},
	{"LUKS", manifest.FormatRaw, func(t *testing.T, path string) {
		write(t, path, append([]byte("LUKS\xba\xbe\x00\x01aes"), make([]byte, 1<<20)...))
	}, "it is encrypted (LUKS)"},
	{"corrupt", manifest.FormatQcow2, func(t *testing.T, path string) {
		qemuImg(t, "create", "-q", "-f", "qcow2", path, "1M")
		patch(t, path, 72, binary.BigEndian.AppendUint64(nil, qcowCorrupt))
	}, "QEMU has marked it as corrupt"},
	{"cut off", manifest.FormatQcow2, func(t *testing.T, path string) { write(t, path, []byte(qcowMagic+"\x00\x00\x00\x03")) }, "the header of the qcow2 is cut off"},
	{"a name without end", manifest.FormatQcow2, func(t *testing.T, path string) {
		qemuImg(t, "create", "-q", "-f", "qcow2", path, "1M")
		patch(t, path, 8, append(binary.BigEndian.AppendUint64(nil, 1<<40), 0xff, 0xff, 0xff, 0xff))
	}, "the name of its backing file"},
	{"version one", manifest.FormatQcow2, func(t *testing.T, path string) { qemuImg(t, "create", "-q", "-f", "qcow", path, "1M") }, "it should be qcow2 and is qcow"},
	{"empty", manifest.FormatRaw, func(t *testing.T, path string) { write(t, path, nil) }, "it is empty"},
}

func TestInspect_strangersImages_areTakenOrRefusedInWords(t *testing.T) {
	images := newImages(t)
	for _, tt := range strangers {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image, with comma")
			tt.make(t, path)
			info, err := images.Inspect(t.Context(), path, tt.format)
			switch {
			case tt.want == "" && (err != nil || info.Format != string(tt.format) || info.VirtualSize == 0):
				t.Errorf("got %+v, %v", info, err)
			case tt.want != "" && (!errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestInspect_hostileQcow2_opensNothingElse has an image name a pipe, which
// whoever opens it would wait for.
func TestInspect_hostileQcow2_opensNothingElse(t *testing.T) {
	images := newImages(t)
	path := filepath.Join(t.TempDir(), "image")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "data_file="+strings.ReplaceAll(path, ",", ",,")+".data", path, "1M")
	if err := os.Remove(path + ".data"); err != nil {
		t.Fatal(err)
	}
	must(t, "mkfifo", path+".data")
	if _, err := images.Inspect(t.Context(), path, manifest.FormatQcow2); !errors.Is(err, ErrUnfit) {
		t.Errorf("got %v", err)
	}
}

func FuzzReadHeader(f *testing.F) {
	head := append([]byte(qcowMagic), make([]byte, 200)...)
	head[7] = 3
	head[103] = 104
	f.Add(head)
	f.Add([]byte("KDMV"))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "image")
		write(t, path, content)
		h, err := ReadHeader(path)
		if err == nil && h.Format == "" {
			t.Errorf("%+v", h)
		}
		if len(h.Backing) > maxBackingName {
			t.Errorf("a backing file's name of %d bytes", len(h.Backing))
		}
	})
}

func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	must(t, "qemu-img", args...)
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func patch(t *testing.T, path string, offset int64, content []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(content, offset); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
