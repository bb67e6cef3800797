package state

// The reasons of events. Besides these there are the reasons of problems, which
// a Warning has when a problem newly appears.
const (
	// EventCreated is a new object that was applied.
	EventCreated = "Created"
	// EventConfigured is a changed object that was applied.
	EventConfigured = "Configured"
	// EventPruned is an object that is to be deleted since it is in no manifest.
	EventPruned = "Pruned"
	// EventDeleting is a delete that a person asked for.
	EventDeleting = "Deleting"
	// EventDeleted is a machine that is gone.
	EventDeleted = "Deleted"
	// EventHeld is a hold that was written.
	EventHeld = "Held"
	// EventReleased is a hold that a person ended.
	EventReleased = "Released"
	// EventHoldEnded is a hold that ended by its time or by a changed spec.
	EventHoldEnded = "HoldEnded"
	// EventIdentity is an identity that was written.
	EventIdentity = "IdentityWritten"
	// EventDiskCreated is a disk that was made.
	EventDiskCreated = "DiskCreated"
	// EventDiskSetAside is a disk that was moved away to be made anew.
	EventDiskSetAside = "DiskSetAside"
	// EventImagePulled is an image that was fetched for a machine.
	EventImagePulled = "ImagePulled"
	// EventImagePullFailed is an image that could not be fetched.
	EventImagePullFailed = "ImagePullFailed"
	// EventRecreateRequired is a disk that was made of another image than it should be.
	EventRecreateRequired = "RecreateRequired"
	// EventDiskGrown is a disk that was made larger.
	EventDiskGrown = "DiskGrown"
	// EventDiskThrottled is a drive whose limits were set.
	EventDiskThrottled = "DiskThrottled"
	// EventPlugged is an item that was added to a running machine, EventUnplugging one
	// whose device the guest was asked to let go of, EventUnplugged one that is gone.
	EventPlugged    = "Plugged"
	EventUnplugging = "Unplugging"
	EventUnplugged  = "Unplugged"
	// EventMedium is a cdrom whose medium was changed.
	EventMedium = "MediumChanged"
	// EventCPUsAdded is a running machine that got more vCPUs.
	EventCPUsAdded = "CPUsAdded"
	// EventForwarded is a running machine whose port forwards were changed.
	EventForwarded = "ForwardsChanged"
	// EventDiskDeleted is a stored disk that a person deleted.
	EventDiskDeleted = "DiskDeleted"
	// EventDiskAdopted is a stored disk, or a folder of them, that a person gave to a machine.
	EventDiskAdopted = "DiskAdopted"
	// EventStarted is a QEMU that was started and answered.
	EventStarted = "Started"
	// EventPoweringOff is a guest that was asked to power off.
	EventPoweringOff = "PoweringOff"
	// EventQuitting is a QEMU that was told to quit.
	EventQuitting = "Quitting"
	// EventKilled is a QEMU that was killed.
	EventKilled = "Killed"
	// EventPaused is a guest whose vCPUs were stopped.
	EventPaused = "Paused"
	// EventResumed is a guest whose vCPUs were let run.
	EventResumed = "Resumed"
	// EventThawed is a guest whose file systems were left frozen and go on.
	EventThawed = "Thawed"
	// EventCancelled is something begun that was given up.
	EventCancelled = "Cancelled"
	// EventReady is a machine that became Ready.
	EventReady = "Ready"
	// EventNotReady is a machine that did not become Ready in time.
	EventNotReady = "NotReady"
	// EventRestartRequired is a change that waits for a restart.
	EventRestartRequired = "RestartRequired"
	// EventDrifted is a machine that was changed although its manifest was not.
	EventDrifted = "Drifted"
	// EventManifestInvalid is a manifest that cannot be used any more.
	EventManifestInvalid = "ManifestInvalid"
	// EventDiskSpaceLow is a filesystem on which disks may soon find no space.
	EventDiskSpaceLow = "DiskSpaceLow"
	// EventProvisioning is a guest that somebody wants provisioned again, or taken as it is.
	EventProvisioning = "Provisioning"
	// EventProvisioningDrift is a guest that was provisioned with other data than its
	// manifest says.
	EventProvisioningDrift = "ProvisioningDrift"
	// EventSaving is a snapshot with memory that was begun.
	EventSaving = "SavingSnapshot"
	// EventSnapshotTaken is a snapshot that is there.
	EventSnapshotTaken = "SnapshotTaken"
	// EventSnapshotDue is a snapshot that a schedule has asked for, EventSnapshotExpired
	// one of these that is kept no longer.
	EventSnapshotDue     = "SnapshotDue"
	EventSnapshotExpired = "SnapshotExpired"
	// EventBackupMade is a backup that is complete, EventBackupFailed one that was not made,
	// EventBackupExpired one that is kept no longer, and EventBackupRestored a machine whose
	// disks were set to one.
	EventBackupMade     = "BackupMade"
	EventBackupFailed   = "BackupFailed"
	EventBackupExpired  = "BackupExpired"
	EventBackupRestored = "BackupRestored"
	// EventSnapshotDeleted is a snapshot whose data was deleted.
	EventSnapshotDeleted = "SnapshotDeleted"
	// EventSnapshotForgotten is a Snapshot object whose record was removed.
	EventSnapshotForgotten = "SnapshotForgotten"
	// EventCloned is a new machine that was made of a snapshot, EventExported are files.
	EventCloned   = "SnapshotCloned"
	EventExported = "SnapshotExported"
	// EventRestoring is a machine that is to be set back to a snapshot, EventRestored
	// one that is, EventRestoreFailed one of which that has failed.
	EventRestoring     = "RestoringSnapshot"
	EventRestored      = "SnapshotRestored"
	EventRestoreFailed = "RestoreFailed"
	// EventStopped is a process that ended since maqet asked for it.
	EventStopped = "Stopped"
	// EventGuestPowerOff is a guest that powered itself off.
	EventGuestPowerOff = "GuestPowerOff"
	// EventSignal is a QEMU that a signal ended politely.
	EventSignal = "Signal"
	// EventCrash is a QEMU that crashed or was killed by others.
	EventCrash = "Crash"
	// EventPanic is a guest whose kernel panicked, upon which QEMU ended.
	EventPanic = "GuestPanicked"
	// EventWatchdog is a guest that its virtual watchdog ended.
	EventWatchdog = "Watchdog"
	// EventQuit is a QEMU that somebody else than maqet told to quit.
	EventQuit = "MonitorQuit"
	// EventHostReboot is a process that ended with the host.
	EventHostReboot = "HostReboot"
	// EventStartFailed is a QEMU that ended before it answered.
	EventStartFailed = "StartFailed"
	// EventStepFailed is a step that failed or was not confirmed.
	EventStepFailed = "StepFailed"
)

// Reasons are the reasons of events, without those of problems.
func Reasons() []string {
	return []string{
		EventCreated, EventConfigured, EventPruned, EventDeleting, EventDeleted,
		EventHeld, EventReleased, EventHoldEnded,
		EventIdentity, EventDiskCreated, EventDiskSetAside, EventImagePulled, EventImagePullFailed, EventRecreateRequired,
		EventPlugged, EventUnplugging, EventUnplugged, EventMedium, EventCPUsAdded, EventForwarded,
		EventDiskGrown, EventDiskThrottled, EventDiskDeleted, EventDiskAdopted, EventStarted, EventPoweringOff, EventQuitting, EventKilled,
		EventPaused, EventResumed, EventThawed, EventCancelled, EventReady, EventNotReady,
		EventRestartRequired, EventDrifted, EventManifestInvalid, EventDiskSpaceLow, EventProvisioning, EventProvisioningDrift,
		EventSaving, EventSnapshotTaken, EventSnapshotDeleted, EventSnapshotForgotten,
		EventSnapshotDue, EventSnapshotExpired, EventBackupMade, EventBackupFailed, EventBackupExpired, EventBackupRestored, EventRestoring, EventRestored, EventRestoreFailed,
		EventCloned, EventExported,
		EventStopped, EventGuestPowerOff, EventSignal, EventCrash, EventPanic, EventWatchdog, EventQuit, EventHostReboot, EventStartFailed,
		EventStepFailed,
	}
}
