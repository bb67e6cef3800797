package qemu

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/internal/slowfs"
	"github.com/maqet/maqet/manifest"
)

// seedLabel is the volume label by which cloud-init finds a NoCloud seed.
const seedLabel = "cidata"

// The files of a NoCloud seed. The first two must be there.
const (
	userDataName      = "user-data"
	metaDataName      = "meta-data"
	networkConfigName = "network-config"
)

// seedFiles are the files of a machine's seed.
func seedFiles(ctx context.Context, files *slowfs.Files, vm *manifest.VirtualMachine, instance string) (map[string][]byte, error) {
	c := vm.Spec.CloudInit
	userData, err := c.ReadUserData(ctx, files)
	if err != nil {
		return nil, &SpecError{
			VM: vm.Metadata.Name, Path: "spec.cloudInit.userDataFile", Msg: "the user-data cannot be read", Err: err,
			Hint: "bring the file back, or correct the path",
		}
	}
	meta := c.MetaData.Map()
	meta["instance-id"] = instance
	if _, named := meta["local-hostname"]; !named {
		meta["local-hostname"] = vm.Metadata.Name
	}
	if len(c.SSHAuthorizedKeys) > 0 {
		meta["public-keys"] = c.SSHAuthorizedKeys
	}
	seed := map[string][]byte{userDataName: userData}
	if seed[metaDataName], err = seedYAML(meta); err != nil {
		return nil, err
	}
	if !c.NetworkConfig.IsZero() {
		if seed[networkConfigName], err = seedYAML(c.NetworkConfig.Map()); err != nil {
			return nil, err
		}
	}
	return seed, nil
}

// seedYAML writes a mapping as JSON, which every reader of YAML reads in the same
// way: all strings are quoted.
func seedYAML(mapping map[string]any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(mapping)
	return b.Bytes(), err
}

// seedDigest tells seeds apart by everything but the instance-id. It is of this
// machine alone, so that it does not give away what two machines have in common.
func (d *Driver) seedDigest(ctx context.Context, vm *manifest.VirtualMachine, uid string) (string, error) {
	files, err := seedFiles(ctx, d.prober.files, vm, "")
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n", uid)
	for _, name := range []string{userDataName, metaDataName, networkConfigName} {
		fmt.Fprintf(sum, "%s %d\n%s", name, len(files[name]), files[name])
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// instanceID is what cloud-init tells one provisioning from the next by.
func instanceID(uid string, rec *driver.SeedRecord) string {
	if rec == nil || rec.Renewals == 0 {
		return uid
	}
	return uid + "-" + strconv.Itoa(rec.Renewals)
}

// readSeed reads the seed's record; nil when there is none.
func (d *Driver) readSeed(name string) (*driver.SeedRecord, error) {
	path := d.layout.SeedRecord(name)
	rec, err := readRecordFile[driver.SeedRecord](path, "remove the file; the guest is then provisioned as if for the first time")
	switch {
	case err != nil || rec == nil:
		return nil, err
	case rec.Version > driver.SeedRecordVersion:
		return nil, newerRecord(path, rec.Version, driver.SeedRecordVersion)
	default:
		return rec, nil
	}
}

// writeSeed writes the seed's record; nil removes it.
func (d *Driver) writeSeed(name string, rec *driver.SeedRecord) error {
	path := d.layout.SeedRecord(name)
	if rec == nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return durable.SyncDir(filepath.Dir(path))
	}
	text, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return durable.WriteFile(path, append(text, '\n'), 0)
}

// prepareSeed makes the seed for a start, if the guest has none of this instance-id
// yet. One that it has stays as it is, whatever the manifest says by now: the data
// reach the guest with another instance-id only. Resumed is a guest that goes on from
// a snapshot, and so provisions nothing: its instance-id is renewed at a later start.
// Undo takes back what a start that failed has recorded.
func (d *Driver) prepareSeed(ctx context.Context, vm *manifest.VirtualMachine, uid string, resumed bool) (undo func() error, err error) {
	undo = func() error { return nil }
	if vm.Spec.CloudInit == nil {
		return undo, nil
	}
	name := vm.Metadata.Name
	before, err := d.readSeed(name)
	if err != nil {
		return nil, err
	}
	instance, path := instanceID(uid, before), d.layout.Seed(name)
	if resumed && before != nil {
		instance = before.Instance
	}
	info, statErr := os.Lstat(path)
	known := before != nil && before.Instance == instance
	if known && statErr == nil && info.Mode().IsRegular() {
		return undo, nil
	}
	digest, err := d.makeSeed(ctx, vm, uid, instance)
	if err != nil || known {
		// The image was lost. What the guest was provisioned with is as recorded.
		return undo, err
	}
	rec := &driver.SeedRecord{Version: driver.SeedRecordVersion, Instance: instance, Digest: digest, At: d.now().UTC()}
	if before != nil {
		rec.Renewals = before.Renewals
	}
	if err := d.writeSeed(name, rec); err != nil {
		return nil, err
	}
	d.log.LogAttrs(ctx, slog.LevelInfo, "seed written", slog.String("vm", name), slog.String("instance", instance))
	return func() error { return d.writeSeed(name, before) }, nil
}

// makeSeed writes the seed and returns the digest of its data.
func (d *Driver) makeSeed(ctx context.Context, vm *manifest.VirtualMachine, uid, instance string) (string, error) {
	name := vm.Metadata.Name
	files, err := seedFiles(ctx, d.prober.files, vm, instance)
	if err != nil {
		return "", err
	}
	if c := vm.Spec.CloudInit; c.UserDataFile != "" {
		// It may have changed since the manifest was checked.
		if refusals, _ := manifest.CheckUserData(c.UserDataFile, files[userDataName]).Split(); len(refusals) > 0 {
			return "", &SpecError{VM: name, Path: "spec.cloudInit.userDataFile", Msg: "cloud-init cannot read it", Err: refusals[0], Hint: "correct the file"}
		}
	}
	digest, err := d.seedDigest(ctx, vm, uid)
	if err != nil {
		return "", err
	}
	return digest, disk.WriteISO(d.layout.Seed(name), d.layout.SeedScratch(name), seedLabel, files)
}

// seed looks at how the guest is provisioned.
func (o *observation) seed(ctx context.Context) {
	if o.vm == nil || o.vm.Spec.CloudInit == nil {
		return
	}
	s := new(driver.Seed)
	o.Seed = s
	rec, err := o.driver.readSeed(o.Name)
	if err != nil {
		s.Err = err.Error()
		return
	}
	if o.Identity == nil {
		return // it was never started, so there is nothing to compare
	}
	s.Next = instanceID(o.Identity.UID, rec)
	if rec != nil {
		s.Instance, s.Applied, s.At = rec.Instance, rec.Digest, rec.At
	}
	if s.Wanted, err = o.driver.seedDigest(ctx, o.vm, o.Identity.UID); err != nil {
		s.Err = err.Error()
	}
}

// Reprovision makes the guest provision again at its next start: its seed then has
// another instance-id, and what the manifest says at that time. The instance-id is
// returned. Asked for again before that start, it changes nothing more. The caller
// holds the machine's lock.
func (d *Driver) Reprovision(ctx context.Context, vm *manifest.VirtualMachine) (instance string, err error) {
	const op = "provision"
	name := vm.Metadata.Name
	id, rec, err := d.provisioned(vm)
	if err != nil {
		return "", fail(op, name, err, "")
	}
	if rec == nil {
		return id.UID, nil
	}
	if instance = instanceID(id.UID, rec); instance != rec.Instance {
		return instance, nil
	}
	rec.Renewals++
	if err := d.writeSeed(name, rec); err != nil {
		return "", fail(op, name, err, "")
	}
	instance = instanceID(id.UID, rec)
	d.log.LogAttrs(ctx, slog.LevelInfo, "instance-id renewed", slog.String("vm", name), slog.String("instance", instance))
	return instance, nil
}

// AcceptSeed records that the guest is as the manifest says, without provisioning it
// again: somebody has changed it by hand. A Reprovision that the guest has not seen
// yet is taken back. The seed itself is made anew at the next
// start, with the instance-id that the guest knows. The caller holds the machine's lock.
func (d *Driver) AcceptSeed(ctx context.Context, vm *manifest.VirtualMachine) error {
	const op = "accept the provisioning of"
	name := vm.Metadata.Name
	id, rec, err := d.provisioned(vm)
	if err != nil || rec == nil {
		return fail(op, name, err, "")
	}
	digest, err := d.seedDigest(ctx, vm, id.UID)
	if err != nil {
		return fail(op, name, err, "")
	}
	renewing := rec.Renewals > 0 && instanceID(id.UID, rec) != rec.Instance
	if renewing {
		// What was asked for is taken back as well.
		rec.Renewals--
	}
	if rec.Digest == digest && !renewing {
		return nil
	}
	// A QEMU that runs has the image open, and keeps it.
	if err := os.Remove(d.layout.Seed(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(op, name, err, "")
	}
	rec.Digest = digest
	if err := d.writeSeed(name, rec); err != nil {
		return fail(op, name, err, "")
	}
	d.log.LogAttrs(ctx, slog.LevelInfo, "provisioning accepted", slog.String("vm", name))
	return nil
}

// provisioned are the records of a machine that has a seed; rec is nil before its
// first start.
func (d *Driver) provisioned(vm *manifest.VirtualMachine) (id driver.Identity, rec *driver.SeedRecord, err error) {
	name := vm.Metadata.Name
	if err := d.usable(name); err != nil {
		return id, nil, err
	}
	if vm.Spec.CloudInit == nil {
		return id, nil, &SpecError{VM: name, Path: "spec.cloudInit", Msg: "the machine is not provisioned by maqet", Hint: "add spec.cloudInit to its manifest"}
	}
	recorded, err := d.readIdentity(name)
	if err != nil || recorded == nil {
		return id, nil, err
	}
	rec, err = d.readSeed(name)
	return *recorded, rec, err
}
