package manifest

import (
	"errors"
	"path/filepath"
	"strings"
)

// resolve fills in the defaults of a backup in a manifest of that folder.
func (b *Backup) resolve(dir string) {
	if b == nil {
		return
	}
	b.Target = absolute(b.Target, dir)
	setDefault(&b.Mode, BackupIncremental)
	if b.Schedule != "" {
		setDefault(&b.TimeZone, DefaultTimeZone)
	}
}

// backup looks at where backups go, and when.
func (v *validator) backup(b *Backup) {
	if b == nil {
		return
	}
	v.check("spec.backup.target", b.Target, func(target string) error {
		switch {
		case strings.ContainsRune(target, 0):
			return errors.New("is no path")
		case filepath.Clean(target) == "/":
			return errors.New("is the root folder; name a folder for backups")
		}
		return nil
	})
	if b.RateLimit != 0 && b.RateLimit < MinBackupRate {
		v.fault("spec.backup.rateLimit", "is less than "+Quantity(MinBackupRate).String()+" a second, at which no backup ends", "name a larger one, or none")
	}
	v.keep("spec.backup.keep", b.Keep, "backup")
	if b.Schedule != "" {
		v.schedule("spec.backup", b.Schedule, b.TimeZone)
		return
	}
	for path, given := range map[string]bool{"spec.backup.timeZone": b.TimeZone != "", "spec.backup.keep": b.Keep != nil} {
		if given {
			v.fault(path, "means nothing without a schedule", "name spec.backup.schedule, or leave it out: what is made by command stays until somebody deletes it")
		}
	}
}

// MinBackupRate is the least that a backup may be limited to, in bytes a second.
const MinBackupRate = 64 << 10
