package guest_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/qemurun"
)

// bootAgent starts the guest with an agent port, whose socket is returned.
func bootAgent(t *testing.T, switches string) (*qemurun.Machine, string) {
	t.Helper()
	g := guest.AgentPath(t)
	socket := filepath.Join(t.TempDir(), "qga.sock")
	m := qemurun.Start(t,
		"-machine", "q35", "-accel", "tcg", "-m", "160",
		"-kernel", g.Kernel, "-initrd", g.Initrd, "-append", g.Cmdline+" "+switches,
		"-chardev", "socket,id=agent,path="+socket+",server=on,wait=off",
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0")
	m.WaitSerial(g.Marker, 1, bootTimeout)
	return m, socket
}

// ask sends one command to the agent and returns the answer behind the sentinel.
func ask(t *testing.T, socket, command string) string {
	t.Helper()
	nc, err := new(net.Dialer).DialContext(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	if err := nc.SetDeadline(time.Now().Add(bootTimeout)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(nc, "\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":7}}\n{\"execute\":%q}\n", command)
	in := bufio.NewReader(nc)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		if strings.HasPrefix(line, "\xff") {
			break
		}
	}
	line, err := in.ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return line
}

func TestGuest_agent_answersAndTheTinyGuestIsAsBefore(t *testing.T) {
	t.Parallel()
	m, socket := bootAgent(t, "maqet.name=asked")
	var reply struct {
		Return struct {
			Name string `json:"host-name"`
		} `json:"return"`
	}
	if err := json.Unmarshal([]byte(ask(t, socket, "guest-get-host-name")), &reply); err != nil || reply.Return.Name != "asked" {
		t.Errorf("guest-get-host-name = %+v, %v", reply, err)
	}
	if out := m.Run("cat /proc/1/cmdline | tr '\\0' ' '", bootTimeout); !strings.Contains(out, "/init") || strings.Contains(out, "agent") {
		t.Errorf("the first process is %q, want the tiny guest's own", out)
	}
	m.Execute("system_powerdown", nil)
	m.WaitEvent("SHUTDOWN", bootTimeout)
}

func TestGuest_noagent_portStaysClosed(t *testing.T) {
	t.Parallel()
	m, _ := bootAgent(t, "maqet.noagent")
	if out := m.Run("ps", bootTimeout); strings.Contains(out, "qemu-ga") {
		t.Errorf("an agent runs:\n%s", out)
	}
}
