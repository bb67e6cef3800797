package manifest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// ownedArgs are options of QEMU that maqet itself passes, or that would take a
// machine out of its hands, each with what to do instead.
func ownedArgs() map[string]string {
	const (
		monitor  = "maqet keeps QEMU's monitors; use maqet qmp"
		process  = "maqet starts, watches and confines the process"
		identity = "the name and uuid are the machine's identity"
		display  = "the display is set by maqet"
		start    = "how a machine starts is set by spec.powerState and by snapshots"
		info     = "QEMU would print and end; ask the binary itself"
	)
	return map[string]string{
		"name": identity, "uuid": identity,
		"qmp": monitor, "qmp-pretty": monitor, "mon": monitor, "monitor": monitor, "chardev": monitor,
		"pidfile": process, "daemonize": process, "runas": process, "chroot": process, "sandbox": process,
		"no-user-config": process, "readconfig": process, "writeconfig": process,
		"preconfig": start, "S": start, "incoming": start, "loadvm": start,
		"snapshot":        "it would throw away what the guest writes",
		"action":          "maqet decides what happens when a guest ends",
		"watchdog-action": "use spec.watchdog.action", "watchdog": "use spec.watchdog",
		"no-shutdown": "maqet decides what happens when a guest ends",
		"no-reboot":   "without a controller a guest that reboots would stay off",
		"nodefaults":  "use spec.emulator.defaultDevices",
		"display":     display, "nographic": display, "curses": display, "sdl": display, "gtk": display,
		"h": info, "help": info, "version": info,
	}
}

// extraArgs looks at the arguments passed to QEMU as they are.
func (v *validator) extraArgs(args []string) {
	owned := ownedArgs()
	for i, arg := range args {
		path := fmt.Sprintf("spec.emulator.extraArgs[%d]", i)
		name, isOption := optionName(arg)
		switch {
		case arg == "":
		case !isOption && i == 0:
			v.fault(path, quote(arg)+" is no option", "begin with an option such as \"-rtc\"; QEMU takes anything else for a disk image")
		case !isOption:
			previous, ok := optionName(args[i-1])
			if !ok {
				v.fault(path, quote(arg)+" follows a value, and an option takes only one", "QEMU would open it as a disk image and write to it; use spec.disks")
				continue
			}
			v.optionValue(path, previous, arg)
		case strings.ContainsAny(name, " \t"):
			option, value, _ := strings.Cut(arg, " ")
			v.fault(path, "holds an option and its value", fmt.Sprintf("write them apart: [%q, %q]", shortenArg(option), shortenArg(value)))
		default:
			if why, ok := owned[name]; ok {
				v.fault(path, quote(arg)+" is not for extraArgs", why)
			}
		}
	}
}

func shortenArg(s string) string { return shorten(strings.TrimSpace(s)) }

// optionName is the name of an option: QEMU takes it with one dash or two.
func optionName(arg string) (string, bool) {
	rest, ok := strings.CutPrefix(arg, "-")
	if !ok || rest == "" {
		return "", false
	}
	return strings.TrimPrefix(rest, "-"), true
}

// optionValue looks at the values that would make a confined QEMU run other
// programs, which ends it, or open a monitor.
func (v *validator) optionValue(path, option, value string) {
	switch option {
	case "netdev", "nic", "net":
		v.netdevArg(path, option, value)
	case "serial", "parallel", "debugcon", "virtioconsole", "gdb":
		if strings.HasPrefix(value, "mon:") {
			v.fault(path, quote(value)+" opens a monitor", "maqet keeps QEMU's monitors; use maqet qmp")
		}
	case "accel", "machine", "M", "cpu", "device":
		if value == "help" || value == "?" {
			v.fault(path, quote(value)+" is not for extraArgs", "QEMU would print and end; ask the binary itself")
		}
	}
}

// netdevArg looks at a network backend, in either of its two forms.
func (v *validator) netdevArg(path, option, value string) {
	fields, flat := netdevFields(value)
	hint := "use spec.nics with bridge: the sandbox of QEMU lets it run no program"
	switch kind := fields["type"]; {
	case kind == "bridge":
		v.fault(path, fmt.Sprintf("-%s of type bridge runs a program", option), hint)
	case kind == "tap" && !tapWithoutScripts(fields):
		v.fault(path, fmt.Sprintf("-%s of type tap runs scripts", option), "add script=no,downscript=no; or use spec.nics with bridge")
	case fields["smb"] != "" || slices.ContainsFunc(flat, func(f string) bool { return strings.Contains(f, "cmd:") && strings.HasPrefix(f, "guestfwd") }):
		v.fault(path, fmt.Sprintf("-%s with smb or guestfwd to a command runs a program", option), "the sandbox of QEMU lets it run none")
	}
}

func tapWithoutScripts(fields map[string]string) bool {
	if fields["helper"] != "" {
		return false
	}
	return fields["fd"] != "" || fields["fds"] != "" || (fields["script"] == "no" && fields["downscript"] == "no")
}

// netdevFields reads "tap,id=a,script=no" or the JSON form.
func netdevFields(value string) (fields map[string]string, flat []string) {
	fields = map[string]string{}
	if strings.HasPrefix(strings.TrimSpace(value), "{") {
		var object map[string]any
		if json.Unmarshal([]byte(value), &object) != nil {
			return fields, nil // QEMU says what is wrong with it
		}
		for key, v := range object {
			text := fmt.Sprint(v)
			fields[key] = text
			flat = append(flat, key+"="+text)
		}
		return fields, flat
	}
	flat = strings.Split(value, ",")
	for i, part := range flat {
		key, text, found := strings.Cut(part, "=")
		if !found && i == 0 {
			key, text = "type", part
		}
		fields[key] = text
	}
	return fields, flat
}
