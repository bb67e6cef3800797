package qemu

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/durable"
)

// cacheFormat is raised when cached answers change their form or meaning.
const cacheFormat = "1"

// cachedHost is an answer on the disk. The long lists are words in one string:
// that decodes several times faster than as many JSON strings, and this file is
// read at the start of every command.
type cachedHost struct {
	Key          string               `json:"key"`
	Version      driver.Version       `json:"version"`
	Arch         string               `json:"arch"`
	Machines     []driver.MachineType `json:"machines"`
	Default      string               `json:"default"`
	CPUModels    string               `json:"cpuModels"`
	Devices      string               `json:"devices"`
	PCIDevices   string               `json:"pciDevices"`
	Accelerators string               `json:"accelerators"`
}

// cacheFile is where answers about a binary are kept.
func (p *Prober) cacheFile(kind, path string) string {
	sum := sha256.Sum256([]byte(path))
	return filepath.Join(p.layout.Cache(), kind+"-"+hex.EncodeToString(sum[:8])+".json")
}

// readCache reads a kept answer. One that is damaged, or about another state of
// the binary, is none.
func (p *Prober) readCache(b binaryFile) (driver.Host, bool) {
	text, err := os.ReadFile(p.cacheFile("host", b.path))
	if err != nil {
		return driver.Host{}, false
	}
	var c cachedHost
	if err := json.Unmarshal(text, &c); err != nil || c.Key != cacheKey(b) {
		return driver.Host{}, false
	}
	host := driver.Host{
		Binary: b.path, Version: c.Version, Arch: c.Arch,
		Machines:     map[string]driver.MachineType{},
		CPUModels:    strings.Fields(c.CPUModels),
		Devices:      wordSet(c.Devices),
		PCIDevices:   wordSet(c.PCIDevices),
		Accelerators: strings.Fields(c.Accelerators),
	}
	for _, m := range c.Machines {
		addMachine(&host, m, m.Name == c.Default)
	}
	return host, true
}

// writeCache keeps an answer. Where that cannot be done, it is asked for again.
func (p *Prober) writeCache(b binaryFile, host driver.Host) {
	c := cachedHost{
		Key: cacheKey(b), Version: host.Version, Arch: host.Arch, Default: host.DefaultMachine,
		CPUModels:    strings.Join(host.CPUModels, " "),
		Devices:      wordsOf(host.Devices),
		PCIDevices:   wordsOf(host.PCIDevices),
		Accelerators: strings.Join(host.Accelerators, " "),
	}
	for _, name := range slices.Sorted(maps.Keys(host.Machines)) {
		if m := host.Machines[name]; m.Name == name {
			c.Machines = append(c.Machines, m)
		}
	}
	p.store(p.cacheFile("host", b.path), c)
}

// store writes a file of the cache. The cache saves time and nothing else, so
// that a full or read-only disk is no reason to fail.
func (p *Prober) store(path string, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		return
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return
	}
	_ = durable.WriteVolatile(path, text, 0)
}

func cacheKey(b binaryFile) string { return cacheFormat + " " + b.key }

func wordSet(words string) map[string]bool {
	set := make(map[string]bool, strings.Count(words, " ")+1)
	for word := range strings.FieldsSeq(words) {
		set[word] = true
	}
	return set
}

func wordsOf(set map[string]bool) string {
	return strings.Join(slices.Sorted(maps.Keys(set)), " ")
}
