package reconcile

// The types of conditions.
const (
	ConditionReady            = "Ready"
	ConditionReconciling      = "Reconciling"
	ConditionStalled          = "Stalled"
	ConditionRestartRequired  = "RestartRequired"
	ConditionRecreateRequired = "RecreateRequired"
	ConditionDrifted          = "Drifted"
	ConditionHeld             = "Held"
	ConditionManifestInvalid  = "ManifestInvalid"
	ConditionIOError          = "IOError"
	ConditionDiskSpaceLow     = "DiskSpaceLow"
	ConditionUnresponsive     = "Unresponsive"
	ConditionBackupFailed     = "BackupFailed"

	ConditionProvisioningDrift = "ProvisioningDrift"
)

// The reasons of problems, besides those of package driver.
const (
	// ReasonStuck is a QEMU that SIGKILL does not end.
	ReasonStuck = "Stuck"
	// ReasonStarting is a QEMU that does not finish starting.
	ReasonStarting = "StartingTooLong"
	// ReasonIOError is a guest that QEMU stopped because its disk failed.
	ReasonIOError = "IOError"
	// ReasonGuestFailed is a guest that cannot run on.
	ReasonGuestFailed = "GuestFailed"
	// ReasonRunState is a run state that maqet does not know what to do about.
	ReasonRunState = "UnexpectedRunState"
	// ReasonIdentityLost is a machine whose identity is gone from the state dir.
	ReasonIdentityLost = "IdentityLost"
	// ReasonDiskLost is a disk that was there and is gone.
	ReasonDiskLost = "DiskLost"
	// ReasonTPMLost is a guest whose TPM is gone.
	ReasonTPMLost = "TPMLost"
	// ReasonDiskMissing is an image that the manifest names and nobody made.
	ReasonDiskMissing = "DiskMissing"
	// ReasonDiskUnknown is an image file that could not be looked at.
	ReasonDiskUnknown = "DiskUnknown"
	// ReasonDiskSize is an image that is larger than its manifest says.
	ReasonDiskSize = "DiskSize"
	// ReasonDiskTooSmall is a disk that would be smaller than the image it is made of.
	ReasonDiskTooSmall = "DiskTooSmall"
	// ReasonImageMissing is a disk of an image that no object names.
	ReasonImageMissing = "ImageMissing"
	// ReasonImageUnusable is an image that cannot be used or looked at.
	ReasonImageUnusable = "ImageUnusable"
	// ReasonImageLost is a disk whose image is gone, without which it cannot be read.
	ReasonImageLost = "ImageLost"
	// ReasonImagePending is a machine whose image nobody fetches yet. It is no
	// problem, like the next two.
	ReasonImagePending = "ImagePending"
	// ReasonImagePulling is a machine whose image is being fetched.
	ReasonImagePulling = "ImagePulling"
	// ReasonImagePullFailed is a machine whose image could not be fetched so far.
	ReasonImagePullFailed = "ImagePullFailed"
	// ReasonSnapshotPending is a snapshot that cannot be taken now.
	ReasonSnapshotPending = "SnapshotPending"
	// ReasonSnapshotFailed is a snapshot that could not be taken.
	ReasonSnapshotFailed = "SnapshotFailed"
	// ReasonSnapshotStuck is a snapshot job past its deadline.
	ReasonSnapshotStuck = "SnapshotStuck"
	// ReasonSnapshotConflict is a tag that holds something else than wanted.
	ReasonSnapshotConflict = "SnapshotConflict"
	// ReasonSnapshotsUnknown is a machine whose disks could not be asked for snapshots.
	ReasonSnapshotsUnknown = "SnapshotsUnknown"
	// ReasonSaving is a QEMU that is silent because it saves memory for a
	// snapshot. It is no problem, and waited for.
	ReasonSaving = "SavingSnapshot"
	// ReasonRestoreFailed is a machine that could not be set back to a snapshot.
	ReasonRestoreFailed = "RestoreFailed"
	// ReasonRestoring is a machine that is being set back to a snapshot.
	ReasonRestoring = "Restoring"
	// ReasonEndedForGood is a machine that failed and is not started again.
	ReasonEndedForGood = "EndedForGood"
	// ReasonReadinessTimeout is a guest whose readiness probe did not succeed in time.
	ReasonReadinessTimeout = "ReadinessTimeout"
	// ReasonNotAsStarted is a guest that differs from the manifest although its QEMU
	// was started for it, so that starting it again would not help.
	ReasonNotAsStarted = "NotAsStarted"
	// ReasonNearlyFull is a filesystem on which disks may soon find no space.
	ReasonNearlyFull = "FilesystemNearlyFull"
	// ReasonFrozen is a guest whose file systems were left frozen and cannot be thawed now.
	ReasonFrozen = "FilesystemsFrozen"
	// ReasonHeld is a delete that waits for a hold.
	ReasonHeld = "Held"
)
