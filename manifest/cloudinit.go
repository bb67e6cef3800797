package manifest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/internal/slowfs"
)

// CloudInit is what cloud-init in the guest is given at its first start, as a
// NoCloud seed. An empty one names the guest and nothing else.
type CloudInit struct {
	// UserData is the user-data itself, which begins with a header such as
	// #cloud-config. Absent with UserDataFile: none.
	UserData string `json:"userData,omitempty"`
	// UserDataFile is a file that holds the user-data, which then is in no record
	// of maqet's and in nothing that it prints.
	UserDataFile string `json:"userDataFile,omitempty"`
	// MetaData is added to what maqet itself puts into meta-data: instance-id,
	// local-hostname (the machine's name unless given here) and public-keys.
	MetaData Free `json:"metaData,omitzero"`
	// NetworkConfig is cloud-init's network configuration, version 1 or 2.
	// Absent: cloud-init's own, DHCP on the first card.
	NetworkConfig Free `json:"networkConfig,omitzero"`
	// SSHAuthorizedKeys are public keys, in OpenSSH's form, for the image's default user.
	SSHAuthorizedKeys []string `json:"sshAuthorizedKeys,omitempty"`
}

// cloudInit looks at the seed's keys. What is in the user-data is looked at by
// the loader, which knows the files.
func (v *validator) cloudInit(c *CloudInit) {
	if c == nil {
		return
	}
	if c.UserData != "" && c.UserDataFile != "" {
		v.fault("spec.cloudInit", "has both userData and userDataFile", "keep one of them")
	}
	v.metaData(c.MetaData)
	v.networkConfig(c.NetworkConfig)
	for i, key := range c.SSHAuthorizedKeys {
		path := fmt.Sprintf("spec.cloudInit.sshAuthorizedKeys[%d]", i)
		v.check(path, key, validPublicKey)
		if key != "" && slices.Index(c.SSHAuthorizedKeys, key) < i {
			v.fault(path, "the key is listed a second time", "remove it")
		}
	}
}

// metaData looks at the keys of meta-data that mean something to maqet.
func (v *validator) metaData(f Free) {
	const path = "spec.cloudInit.metaData"
	owned := map[string]string{
		"instance-id": "it is the machine's uuid; maqet provision renews it",
		"public-keys": "use spec.cloudInit.sshAuthorizedKeys", "public_keys": "use spec.cloudInit.sshAuthorizedKeys",
		"dsmode": "maqet's seed is local, and read before the network is up",
	}
	for key, value := range f.Map() {
		at := joinPath([]string{"spec", "cloudInit", "metaData", key})
		if why, ok := owned[key]; ok {
			v.fault(at, "is set by maqet", why)
			continue
		}
		if key != "local-hostname" {
			continue
		}
		if name, ok := value.(string); !ok || !hostnameSyntax.MatchString(name) || len(name) > 253 {
			v.fault(path+".local-hostname", "is no host name", "use letters, digits, '-' and '.'")
		}
	}
}

// networkConfig looks at what every network configuration has. The top-level key
// "network" may be around it or not.
func (v *validator) networkConfig(f Free) {
	const path = "spec.cloudInit.networkConfig"
	if f.IsZero() {
		return
	}
	config := f.Map()
	at := path
	if inner, ok := config["network"]; ok {
		at += ".network"
		config, ok = inner.(map[string]any)
		if !ok {
			v.fault(at, "must be a mapping", "")
			return
		}
	}
	if config["config"] == "disabled" {
		return
	}
	version := fmt.Sprint(config["version"])
	switch _, known := config["version"]; {
	case !known:
		v.fault(at, "has no version, without which cloud-init does not read it", "add version: 2; for DHCP on the first card leave networkConfig out")
	case version != "1" && version != "2":
		v.fault(at+".version", "is no version of cloud-init's network configuration", "use 1 or 2")
	case version == "2" && config["config"] != nil:
		v.fault(at+".config", "is a key of version 1", "use ethernets, or version: 1")
	case version == "1" && config["config"] == nil:
		v.fault(at, "has no config, which version 1 consists of", "add config: [...], or use version: 2 with ethernets")
	}
}

// keyTypes are the public keys that OpenSSH takes today.
var keyTypes = newPattern(`^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)$`)

// validPublicKey says why s is no line of an authorized_keys file; nil when it is
// one. It never repeats the text, which may be a private key.
func validPublicKey(s string) error {
	if strings.Contains(s, "PRIVATE KEY") {
		return errors.New("is a private key, which belongs to nobody but its owner; give the public one, from the file that ends in .pub")
	}
	fields := strings.Fields(s)
	at := slices.IndexFunc(fields, keyTypes.MatchString)
	if at < 0 || at+1 >= len(fields) {
		return errors.New("is no public key of OpenSSH's: give the one line of a .pub file, such as \"ssh-ed25519 AAAA... me@example\"")
	}
	blob, err := base64.StdEncoding.DecodeString(fields[at+1])
	if err != nil || len(blob) < 4 {
		return errors.New("is a public key that is damaged or cut off: copy the whole line of the .pub file")
	}
	n := int(binary.BigEndian.Uint32(blob))
	if n > len(blob)-4 || string(blob[4:4+n]) != fields[at] || len(blob) <= 4+n {
		return errors.New("is a public key that is damaged or cut off: copy the whole line of the .pub file")
	}
	return nil
}

// MaxUserData is how many bytes user-data may have.
const MaxUserData = 16 << 20

// ReadUserData is the user-data of a resolved machine, from wherever it is; nil
// when there is none. An error names no content. A file is waited for as long as files
// does.
func (c *CloudInit) ReadUserData(ctx context.Context, files *slowfs.Files) ([]byte, error) {
	if c.UserDataFile == "" {
		if c.UserData == "" {
			return nil, nil
		}
		return []byte(c.UserData), nil
	}
	return slowfs.Ask(ctx, files, c.UserDataFile, c.readUserDataFile)
}

func (c *CloudInit) readUserDataFile() ([]byte, error) {
	// Opening a pipe would wait for a writer.
	f, err := os.OpenFile(c.UserDataFile, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, &fs.PathError{Op: "read", Path: c.UserDataFile, Err: errors.New("it is no regular file")}
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxUserData+1))
	if err == nil && len(text) > MaxUserData {
		err = &fs.PathError{Op: "read", Path: c.UserDataFile, Err: fmt.Errorf("it has more than %d MiB", MaxUserData>>20)}
	}
	return text, err
}

// CheckUserData looks for the mistakes that cloud-init itself tells of only in a
// log within the guest, or not at all. Positions are within text and name file.
func CheckUserData(file string, text []byte) Errors {
	c := userDataCheck{file: file, text: text}
	c.all()
	c.found.Sort()
	return c.found
}

// userData looks at the machine's user-data. What is wrong with it is the fault of
// this machine alone, wherever the text is. It is false when it refuses the machine.
func (l *fileLoader) userData(n *yaml.Node, vm *VirtualMachine) bool {
	c := vm.Spec.CloudInit
	if c == nil || c.UserData == "" && c.UserDataFile == "" {
		return true
	}
	key := ObjectKey{KindVirtualMachine, vm.Metadata.Name}
	var found Errors
	if c.UserDataFile == "" {
		const path = "spec.cloudInit.userData"
		at := locate(n, path)
		found = CheckUserData(l.src.name, []byte(c.UserData))
		for _, e := range found {
			e.Path, e.Position = path, l.within(at, e.Position)
		}
	} else {
		resolved := CloudInit{UserDataFile: absolute(c.UserDataFile, l.src.dir)}
		text, err := l.readUserData(&resolved)
		if err != nil {
			at := locate(n, "spec.cloudInit.userDataFile")
			l.faults = append(l.faults, &Error{
				Position: l.position(at), Path: "spec.cloudInit.userDataFile", Msg: quote(c.UserDataFile) + " cannot be read", Err: pathCause(err),
				Hint: "relative paths begin at the manifest's folder; create the file or correct the path", Conflict: []ObjectKey{key},
			})
			return false
		}
		found = CheckUserData(l.beside(c.UserDataFile), text)
		for _, e := range found {
			e.Conflict = []ObjectKey{key}
		}
	}
	refusals, warnings := found.Split()
	l.faults, l.warnings = append(l.faults, refusals...), append(l.warnings, warnings...)
	return len(refusals) == 0
}

// beside is what positions call a file that a manifest names.
func (l *fileLoader) beside(path string) string {
	if filepath.IsAbs(path) || l.src.path == stdinPath {
		return filepath.Clean(path)
	}
	return filepath.Join(filepath.Dir(l.src.name), path)
}

// within is the place in the manifest of a place in a text of it. Only literal
// blocks have each of their characters in a place of its own; for the others the
// beginning has to do.
func (l *fileLoader) within(at *yaml.Node, p Position) Position {
	if at.Style&yaml.LiteralStyle == 0 {
		return l.position(at)
	}
	value := bytes.Split([]byte(at.Value), []byte("\n"))
	lines := bytes.Split(l.text, []byte("\n"))
	if p.Line > len(value) || at.Line+p.Line > len(lines) {
		return l.position(at)
	}
	line := bytes.TrimSuffix(lines[at.Line+p.Line-1], []byte("\r"))
	indent := len(line) - len(value[p.Line-1]) // indentation is spaces only
	return Position{l.src.name, at.Line + p.Line, max(indent, 0) + cmp.Or(p.Column, 1)}
}
