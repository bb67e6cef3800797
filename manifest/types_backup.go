package manifest

// Backup has the disks of a machine copied to a folder, by a schedule and by command.
type Backup struct {
	// Schedule is when a watch does so, in cron's five fields or as @daily and the like
	// (crontab(5)). Absent: only by command.
	Schedule string `json:"schedule,omitempty"`
	// TimeZone is the IANA name of the zone that the schedule is read in. Absent: UTC.
	TimeZone string `json:"timeZone,omitempty"`
	// Target is the folder that backups go to, which must be there. Each machine gets a
	// folder of its own in it.
	Target string `json:"target"`
	// Mode is Incremental or Full. Absent: Incremental.
	Mode BackupMode `json:"mode,omitempty"`
	// Quiesce is as in a Snapshot object. Absent: IfAvailable.
	Quiesce Quiesce `json:"quiesce,omitempty"`
	// RateLimit is how many bytes a second are read of a running machine's disks
	// altogether. Absent: no limit.
	RateLimit Quantity `json:"rateLimit,omitempty"`
	// Keep says which of the scheduled backups stay. Absent: all.
	Keep *Keep `json:"keep,omitempty"`
}

// BackupMode says what a backup copies.
type BackupMode string

// The modes. Absent: Incremental.
const (
	// BackupIncremental copies what has changed since the backup before, where QEMU kept
	// track of that.
	BackupIncremental BackupMode = "Incremental"
	// BackupFull copies everything.
	BackupFull BackupMode = "Full"
)
