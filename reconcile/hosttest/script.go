package hosttest

import "github.com/maqet/maqet/driver"

// Scene is a part of the script that begins with a new machine.
type Scene struct {
	Name  string
	Lines []Line
}

// Line is something that is done, whether that fails, and what is seen then; see
// the method words for what is seen.
type Line struct {
	Do    string
	Seen  string
	Fails bool
}

const (
	absent  = "Absent"
	running = "Alive running ready"
)

// up is how most scenes begin: with a machine whose guest is up.
func up(then ...Line) []Line {
	return append([]Line{
		{Do: "maqet identifies", Seen: "Absent diskless"},
		{Do: "maqet creates", Seen: absent},
		{Do: "maqet starts", Seen: running},
	}, then...)
}

// by is what is seen of a machine that has ended.
func by(cause driver.EndCause) string { return "Absent ended:" + string(cause) + " launched" }

// Script are all scenes.
func Script() []Scene {
	return append(append(append(lifeScenes(), endScenes()...), append(hangScenes(), diskScenes()...)...), snapshotScenes()...)
}

func lifeScenes() []Scene {
	return []Scene{
		{"a life from nothing to nothing", []Line{
			{Do: "maqet looks", Seen: "Absent unidentified diskless"},
			{Do: "maqet identifies", Seen: "Absent diskless"},
			{Do: "maqet starts", Seen: "Absent diskless", Fails: true},
			{Do: "maqet clears", Seen: "Absent diskless"},
			{Do: "maqet creates", Seen: absent},
			{Do: "maqet creates", Seen: absent},
			{Do: "maqet starts", Seen: running},
			{Do: "maqet starts", Seen: running, Fails: true},
			{Do: "maqet clears", Seen: running, Fails: true},
			{Do: "maqet forgets", Seen: running, Fails: true},
			{Do: "maqet intends Stop", Seen: running + " intent:Stop"},
			{Do: "maqet powers-down", Seen: "Absent intent:Stop ended:" + string(driver.EndStopped) + " launched"},
			{Do: "maqet clears", Seen: absent},
			{Do: "maqet forgets", Seen: "Absent unidentified diskless"},
		}},
		{"a life that is forgotten with all records", up(
			Line{Do: "maqet quits", Seen: by(driver.EndGuest)},
			Line{Do: "maqet forgets all", Seen: "Absent unidentified diskless"},
		)},
		{"orders to a machine that is not there", []Line{
			{Do: "maqet identifies", Seen: "Absent diskless"},
			{Do: "maqet powers-down", Seen: "Absent diskless"},
			{Do: "maqet quits", Seen: "Absent diskless"},
			{Do: "maqet kills", Seen: "Absent diskless"},
			{Do: "maqet pauses", Seen: "Absent diskless", Fails: true},
			{Do: "maqet resumes", Seen: "Absent diskless", Fails: true},
			{Do: "maqet clears", Seen: "Absent diskless"},
		}},
		{"started paused", []Line{
			{Do: "maqet identifies", Seen: "Absent diskless"},
			{Do: "maqet creates", Seen: absent},
			{Do: "maqet starts paused", Seen: "Alive prelaunch -S"},
			{Do: "maqet powers-down", Seen: "Alive prelaunch -S"},
			{Do: "time passes", Seen: "Alive prelaunch -S"},
			{Do: "maqet resumes", Seen: running},
			{Do: "maqet pauses", Seen: "Alive paused ready"},
			{Do: "maqet resumes", Seen: running},
		}},
		{"paused and resumed by hand", up(
			Line{Do: "monitor stop", Seen: "Alive paused ready"},
			Line{Do: "monitor stop", Seen: "Alive paused ready"},
			Line{Do: "maqet pauses", Seen: "Alive paused ready"},
			Line{Do: "monitor cont", Seen: running},
			Line{Do: "maqet resumes", Seen: running},
		)},
		{"reset by its guest and by hand", up(
			Line{Do: "guest resets", Seen: running},
			Line{Do: "monitor system_reset", Seen: running},
		)},
		{"broken, then mended", []Line{
			{Do: "maqet identifies", Seen: "Absent diskless"},
			{Do: "maqet creates", Seen: absent},
			{Do: "maqet starts broken", Seen: absent, Fails: true},
			{Do: "maqet starts", Seen: running},
			{Do: "kernel kills", Seen: by(driver.EndCrash)},
		}},
	}
}

func endScenes() []Scene {
	watched := func(then ...Line) []Line {
		return up(append([]Line{{Do: "maqet listens", Seen: running}}, then...)...)
	}
	const stopping = running + " intent:Stop"
	return []Scene{
		{"the button, and nothing else", up(Line{Do: "maqet powers-down", Seen: by(driver.EndGuest)})},
		{"the button of a guest that is deaf", up(
			Line{Do: "guest goes deaf", Seen: running},
			Line{Do: "maqet intends Stop", Seen: stopping},
			Line{Do: "maqet powers-down", Seen: stopping},
			Line{Do: "time passes", Seen: stopping},
			Line{Do: "maqet quits", Seen: "Absent intent:Stop ended:" + string(driver.EndStopped) + " launched"},
		)},
		{"the button after the stop was dropped", up(
			Line{Do: "maqet intends Stop", Seen: stopping},
			Line{Do: "maqet intends nothing", Seen: running},
			Line{Do: "maqet powers-down", Seen: by(driver.EndGuest)},
		)},
		{"quit, heard by nobody", up(Line{Do: "maqet quits", Seen: by(driver.EndGuest)})},
		{"quit, heard", watched(Line{Do: "maqet quits", Seen: by(driver.EndQuit)})},
		{"quit in a monitor, heard", watched(Line{Do: "monitor quit", Seen: by(driver.EndQuit)})},
		{"quit for a restart", up(
			Line{Do: "maqet intends Restart", Seen: running + " intent:Restart"},
			Line{Do: "maqet quits", Seen: "Absent intent:Restart ended:" + string(driver.EndStopped) + " launched"},
		)},
		{"killed by maqet", up(Line{Do: "maqet kills", Seen: by(driver.EndCrash)})},
		{"killed while it is stopped", up(
			Line{Do: "maqet intends Stop", Seen: stopping},
			Line{Do: "kernel kills", Seen: "Absent intent:Stop ended:" + string(driver.EndStopped) + " launched"},
		)},
		{"killed", watched(Line{Do: "kernel kills", Seen: by(driver.EndCrash)})},
		{"aborted", up(Line{Do: "kernel aborts", Seen: by(driver.EndCrash)})},
		{"terminated, heard by nobody", up(Line{Do: "kernel terminates", Seen: by(driver.EndSignal)})},
		{"terminated, heard", watched(Line{Do: "kernel terminates", Seen: by(driver.EndSignal)})},
		{"powered off, heard by nobody", up(Line{Do: "guest powers off", Seen: by(driver.EndGuest)})},
		{"powered off, heard", watched(Line{Do: "guest powers off", Seen: by(driver.EndGuest)})},
		{"panicked, heard by nobody", up(Line{Do: "guest panics", Seen: by(driver.EndGuest)})},
		{"panicked, heard", watched(Line{Do: "guest panics", Seen: by(driver.EndPanic)})},
		{"hung, heard by nobody", up(Line{Do: "guest hangs", Seen: by(driver.EndCrash)})},
		{"hung, heard", watched(Line{Do: "guest hangs", Seen: by(driver.EndWatchdog)})},
		{"heard no more", watched(
			Line{Do: "maqet ignores", Seen: running},
			Line{Do: "monitor quit", Seen: by(driver.EndGuest)},
		)},
		{"ended with the host", up(
			Line{Do: "kernel reboots", Seen: by(driver.EndHostReboot)},
			Line{Do: "maqet clears", Seen: absent},
			Line{Do: "maqet starts", Seen: running},
		)},
		{"ended with the host while it is stopped", up(
			Line{Do: "maqet intends Stop", Seen: stopping},
			Line{Do: "kernel reboots", Seen: by(driver.EndHostReboot)},
		)},
	}
}

func hangScenes() []Scene {
	const frozen = "Unresponsive NoAnswer"
	return []Scene{
		{"paused, so deaf", up(
			Line{Do: "maqet pauses", Seen: "Alive paused ready"},
			Line{Do: "maqet powers-down", Seen: "Alive paused ready"},
			Line{Do: "time passes", Seen: "Alive paused ready"},
			Line{Do: "maqet quits", Seen: by(driver.EndGuest)},
		)},
		{"the button of a paused guest, which goes on", up(
			Line{Do: "maqet pauses", Seen: "Alive paused ready"},
			Line{Do: "maqet powers-down", Seen: "Alive paused ready"},
			Line{Do: "maqet resumes", Seen: by(driver.EndGuest)},
		)},
		{"panicked, and left so", up(
			Line{Do: "monitor set-action panic=pause", Seen: running},
			Line{Do: "guest panics", Seen: "Alive guest-panicked ready"},
			Line{Do: "maqet powers-down", Seen: "Alive guest-panicked ready"},
			Line{Do: "time passes", Seen: "Alive guest-panicked ready"},
			Line{Do: "maqet quits", Seen: by(driver.EndGuest)},
		)},
		{"cut off from its sockets", up(
			Line{Do: "kernel loses the sockets", Seen: "Unresponsive SocketsLost"},
			Line{Do: "maqet powers-down", Seen: "Unresponsive SocketsLost", Fails: true},
			Line{Do: "maqet quits", Seen: "Unresponsive SocketsLost", Fails: true},
			Line{Do: "maqet starts", Seen: "Unresponsive SocketsLost", Fails: true},
			Line{Do: "maqet clears", Seen: "Unresponsive SocketsLost", Fails: true},
			Line{Do: "kernel kills", Seen: by(driver.EndCrash)},
		)},
		{"frozen and thawed", up(
			Line{Do: "kernel freezes", Seen: frozen},
			Line{Do: "maqet powers-down", Seen: frozen, Fails: true},
			Line{Do: "maqet quits", Seen: frozen, Fails: true},
			Line{Do: "maqet pauses", Seen: frozen, Fails: true},
			Line{Do: "maqet starts", Seen: frozen, Fails: true},
			Line{Do: "kernel thaws", Seen: running},
		)},
		{"frozen and killed", up(
			Line{Do: "kernel freezes", Seen: frozen},
			Line{Do: "maqet kills", Seen: by(driver.EndCrash)},
		)},
	}
}

func diskScenes() []Scene {
	return []Scene{
		{"a disk grown and limited", up(
			Line{Do: "maqet grows to 8Mi", Seen: running + " size:8Mi"},
			Line{Do: "maqet grows to 8Mi", Seen: running + " size:8Mi"},
			Line{Do: "maqet grows to 6Mi", Seen: running + " size:8Mi", Fails: true},
			Line{Do: "maqet limits to 50", Seen: running + " size:8Mi limit:50"},
			Line{Do: "maqet limits nothing", Seen: running + " size:8Mi"},
			Line{Do: "maqet limits to 60", Seen: running + " size:8Mi limit:60"},
			Line{Do: "kernel kills", Seen: by(driver.EndCrash) + " size:8Mi"},
			Line{Do: "maqet limits to 60", Seen: by(driver.EndCrash) + " size:8Mi", Fails: true},
			Line{Do: "maqet grows to 16Mi", Seen: by(driver.EndCrash) + " size:16Mi"},
			Line{Do: "maqet grows to 8Mi", Seen: by(driver.EndCrash) + " size:16Mi", Fails: true},
			Line{Do: "maqet starts", Seen: running + " size:16Mi"},
		)},
		{"a disk that is not there", []Line{
			{Do: "maqet identifies", Seen: "Absent diskless"},
			{Do: "maqet grows to 8Mi", Seen: "Absent diskless", Fails: true},
		}},
		{"a disk of a frozen machine", up(
			Line{Do: "kernel freezes", Seen: "Unresponsive NoAnswer"},
			Line{Do: "maqet grows to 8Mi", Seen: "Unresponsive NoAnswer", Fails: true},
			Line{Do: "maqet limits to 50", Seen: "Unresponsive NoAnswer", Fails: true},
			Line{Do: "kernel thaws", Seen: running},
		)},
	}
}

func snapshotScenes() []Scene {
	const saving = " intent:Snapshot"
	return []Scene{
		{"snapshots of disks", up(
			Line{Do: "maqet takes a", Seen: running + " snapshot:a"},
			Line{Do: "maqet takes a", Seen: running + " snapshot:a", Fails: true},
			Line{Do: "maqet takes b", Seen: running + " snapshot:a snapshot:b"},
			Line{Do: "maqet deletes a", Seen: running + " snapshot:b"},
			Line{Do: "maqet deletes a", Seen: running + " snapshot:b"},
			Line{Do: "maqet finishes b", Seen: running + " snapshot:b"},
			Line{Do: "maqet quits", Seen: by(driver.EndGuest) + " snapshot:b"},
			Line{Do: "maqet clears", Seen: "Absent snapshot:b"},
			Line{Do: "maqet takes c", Seen: "Absent snapshot:b snapshot:c"},
			Line{Do: "maqet deletes b", Seen: "Absent snapshot:c"},
			Line{Do: "maqet starts", Seen: running + " snapshot:c"},
		)},
		{"a snapshot with memory", up(
			Line{Do: "maqet intends Snapshot", Seen: running + saving},
			Line{Do: "maqet takes full", Seen: running + saving + " job:concluded snapshot:full+mem"},
			Line{Do: "maqet finishes full", Seen: running + saving + " snapshot:full+mem"},
			Line{Do: "maqet intends nothing", Seen: running + " snapshot:full+mem"},
			Line{Do: "maqet deletes full", Seen: running},
		)},
		{"a snapshot with memory of a paused guest", up(
			Line{Do: "maqet pauses", Seen: "Alive paused ready"},
			Line{Do: "maqet takes full", Seen: "Alive paused ready job:concluded snapshot:full+mem"},
			Line{Do: "maqet finishes full", Seen: "Alive paused ready snapshot:full+mem"},
		)},
		{"a snapshot with memory that nobody finished", up(
			Line{Do: "maqet takes full", Seen: running + " job:concluded snapshot:full+mem"},
			Line{Do: "kernel kills", Seen: by(driver.EndCrash) + " snapshot:full+mem"},
			Line{Do: "maqet starts", Seen: running + " snapshot:full+mem"},
			Line{Do: "maqet finishes full", Seen: running + " snapshot:full+mem"},
		)},
		{"snapshots that are not there", up(
			Line{Do: "maqet finishes full", Seen: running, Fails: true},
			Line{Do: "maqet deletes full", Seen: running},
			Line{Do: "maqet quits", Seen: by(driver.EndGuest)},
			Line{Do: "maqet takes full", Seen: by(driver.EndGuest), Fails: true},
		)},
	}
}
