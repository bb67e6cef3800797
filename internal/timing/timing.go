package timing

import "time"

// Table holds every duration that maqet waits for or limits something by. A
// manifest key, where one is named, wins over the table.
type Table struct {
	// Lock is how long to wait for another process's lock on a machine, socket or database.
	Lock time.Duration `flag:"lock"`
	// Greeting is the budget of connecting to a QMP socket and its handshake;
	// a QEMU that exceeds it is Unresponsive.
	Greeting time.Duration `flag:"greeting"`
	// Query is how long QEMU may take to answer a short QMP command.
	Query time.Duration `flag:"query"`
	// Connect is how long a readiness probe may take to connect to a guest's address.
	Connect time.Duration `flag:"connect"`
	// Agent is how long a guest's agent may be silent when it was asked something.
	Agent time.Duration `flag:"agent"`
	// AgentVisit is how long one visit to a guest's agent may last altogether, such as
	// one that fetches what a program wrote.
	AgentVisit time.Duration `flag:"agent-visit"`
	// AgentLook is how long a look at a machine waits for its guest's agent, and a try
	// of a readiness probe.
	AgentLook time.Duration `flag:"agent-look"`
	// Freeze is how long a guest may take to write out and freeze its file systems.
	Freeze time.Duration `flag:"freeze"`
	// Frozen is how long file systems of a guest stay frozen at most while a snapshot is
	// taken: then they are thawed whatever has come of it.
	Frozen time.Duration `flag:"frozen"`
	// Events is how long a line of the journal may wait to be written before it
	// is given up: no action waits longer for its own trace.
	Events time.Duration `flag:"events"`
	// Look is how long wait and get -w go on without looking again at what tells
	// of no change by itself, such as a guest that somebody paused by QMP.
	Look time.Duration `flag:"look"`
	// Bus is how long systemd may take to give a new QEMU a scope of its own.
	Bus time.Duration `flag:"bus"`
	// Start is how long a new QEMU may take until it answers query-status.
	Start time.Duration `flag:"start"`
	// Shutdown is how long a guest may take to power off (key shutdown.timeout).
	Shutdown time.Duration `flag:"shutdown"`
	// Quit is how long QEMU may take to end after "quit" before it is killed.
	Quit time.Duration `flag:"quit"`
	// Kill is how long the kernel may take to end a killed QEMU before it is called stuck.
	Kill time.Duration `flag:"kill"`
	// Ready is how long a guest may take to become Ready (key readiness.timeout).
	Ready time.Duration `flag:"ready"`
	// Probe is how long one question to a QEMU binary may take.
	Probe time.Duration `flag:"probe"`
	// File is how long a file system of this host may take to tell of a file that a
	// manifest names.
	File time.Duration `flag:"file"`
	// Image is how long one qemu-img command may take.
	Image time.Duration `flag:"image"`
	// Stall is how long a server may send nothing, or next to nothing, of an image.
	Stall time.Duration `flag:"stall"`
	// Pull is how long fetching one image may take in all.
	Pull time.Duration `flag:"pull"`
	// Unplug is how long a guest may take to let go of a device before it counts as one
	// that refuses.
	Unplug time.Duration `flag:"unplug"`
	// Snapshot is how long taking a snapshot may last (key deadline).
	Snapshot time.Duration `flag:"snapshot"`
	// Backup is how long a backup may last, and checking or restoring one.
	Backup time.Duration `flag:"backup"`
	// Backoff is how long watch waits before it starts a machine that failed
	// once; it doubles with each further failure.
	Backoff time.Duration `flag:"backoff"`
	// BackoffMax is the most that Backoff doubles to.
	BackoffMax time.Duration `flag:"backoff-max"`
	// BackoffReset is how long a machine has to run until its failures are forgotten.
	BackoffReset time.Duration `flag:"backoff-reset"`
	// Resync is when watch looks again at everything although nothing told of a change.
	Resync time.Duration `flag:"resync"`
	// Absence is how long watch must miss an object before it prunes it.
	Absence time.Duration `flag:"absence"`
}

// Default is the table that holds without flags.
func Default() Table {
	return Table{
		Lock:     10 * time.Second,
		Greeting: 3 * time.Second,
		Query:    5 * time.Second,
		Connect:  time.Second,
		Agent:    5 * time.Second,
		Events:   time.Second,
		Look:     2 * time.Second,
		Bus:      3 * time.Second,
		Start:    30 * time.Second,
		Shutdown: 60 * time.Second,
		Quit:     10 * time.Second,
		Kill:     5 * time.Second,
		Ready:    120 * time.Second,
		Probe:    10 * time.Second,
		File:     5 * time.Second,
		Image:    5 * time.Minute,
		Snapshot: 5 * time.Minute,
		Unplug:   30 * time.Second,
		Stall:    30 * time.Second,
		Pull:     24 * time.Hour,
		Backup:   24 * time.Hour,

		AgentLook:  time.Second,
		AgentVisit: 2 * time.Minute,
		Freeze:     30 * time.Second,
		Frozen:     20 * time.Second,

		Backoff:      time.Second,
		BackoffMax:   5 * time.Minute,
		BackoffReset: 10 * time.Minute,
		Resync:       5 * time.Minute,
		Absence:      2 * time.Second,
	}
}
