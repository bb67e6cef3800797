package qemu

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

func TestAskGuest_agent_isTakenAtItsWord(t *testing.T) {
	r := newRig(t)
	r.start(r.vm("web", withAgentPort), false)
	r.timing.AgentLook = 20 * time.Second
	answers := map[string]string{
		"guest-info":          `{"return": {"version": "7.2.22"}}`,
		"guest-get-host-name": `{"return": {"host-name": "www"}}`,
		"guest-get-osinfo":    `{"return": {"id": "debian", "name": "Debian", "version-id": "12", "kernel-release": "6.1", "machine": "x86_64"}}`,
		"guest-network-get-interfaces": `{"return": [
			{"name": "lo", "ip-addresses": [{"ip-address": "127.0.0.1", "prefix": 8}, {"ip-address": "::1", "prefix": 128}]},
			{"name": "eth0", "hardware-address": "52:54:00:12:34:56", "ip-addresses": [
				{"ip-address": "192.0.2.7", "prefix": 24}, {"ip-address": "fe80::1", "prefix": 64}, {"ip-address": "nonsense", "prefix": 0}]},
			{"name": "eth1"}]}`,
	}
	for command, text := range answers {
		answers[command] = oneLine(text)
	}
	r.fakeAgent(answers)
	want := &driver.GuestInfo{
		AgentVersion: "7.2.22", Hostname: "www",
		OS:        &driver.GuestOS{ID: "debian", Name: "Debian", Version: "12", Kernel: "6.1", Machine: "x86_64"},
		Addresses: []string{"192.0.2.7"},
		Interfaces: []driver.GuestInterface{
			{Name: "lo", Addresses: []string{"127.0.0.1/8", "::1/128"}},
			{Name: "eth0", MAC: "52:54:00:12:34:56", Addresses: []string{"192.0.2.7/24", "fe80::1/64", "nonsense/0"}},
			{Name: "eth1", Addresses: []string{}},
		},
	}
	if diff := cmp.Diff(want, r.AskGuest(t.Context(), "web")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// What it is not permitted to tell is left out.
	refusal := `{"error": {"class": "CommandNotFound", "desc": "disabled"}}`
	answers["guest-get-osinfo"], answers["guest-network-get-interfaces"] = refusal, refusal
	r.fakeAgent(answers)
	want = &driver.GuestInfo{AgentVersion: "7.2.22", Hostname: "www", Addresses: []string{}, Interfaces: []driver.GuestInterface{}}
	if diff := cmp.Diff(want, r.AskGuest(t.Context(), "web")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestAskGuest_guestThatLies_fillsNoTable has a guest with more addresses than anybody
// reads, and with text behind them.
func TestAskGuest_guestThatLies_fillsNoTable(t *testing.T) {
	r := newRig(t)
	r.start(r.vm("web", withAgentPort), false)
	r.timing.AgentLook = patient
	ips := strings.TrimSuffix(strings.Repeat(`{"ip-address": "2001:db8::1%any text", "prefix": 64},`, 60), ",")
	r.fakeAgent(map[string]string{
		"guest-info": `{"return": {}}`, "guest-get-host-name": `{"return": {}}`, "guest-get-osinfo": `{"return": {}}`,
		"guest-network-get-interfaces": `{"return": [` + strings.TrimSuffix(strings.Repeat(`{"name": "a", "ip-addresses": [`+ips+`]},`, 100), ",") + `]}`,
	})
	info := r.AskGuest(t.Context(), "web")
	if info == nil || len(info.Interfaces) != 100 || len(info.Addresses) != maxGuestAddresses || info.Addresses[0] != "2001:db8::1" {
		t.Errorf("%+v", info)
	}
}

// oneLine is a text as the agent would write it.
func oneLine(text string) string {
	b := make([]byte, 0, len(text))
	for _, c := range []byte(text) {
		if c != '\n' && c != '\t' {
			b = append(b, c)
		}
	}
	return string(b)
}

func TestAskGuest_nobodyAnswers_isOverInALooksTime(t *testing.T) {
	r := newRig(t)
	r.start(r.vm("web", withAgentPort), false)
	r.timing.AgentLook, r.timing.Agent, r.timing.Lock = 50*time.Millisecond, time.Hour, time.Hour
	ask := func(why string) {
		t.Helper()
		begun := time.Now()
		if info := r.AskGuest(t.Context(), "web"); info != nil {
			t.Errorf("%s: %+v", why, info)
		}
		if took := time.Since(begun); took > 20*time.Second {
			t.Errorf("%s: it took %s", why, took)
		}
	}
	r.fakeAgent(map[string]string{"guest-info": `{"return": {}}`})
	ask("silent after the first answer")
	r.silentAgent("web")
	ask("silent")
	leave, err := rigAt(t, r.layout).enterAgent(t.Context(), "web")
	r.must(err)
	defer leave()
	ask("somebody else visits it")
}

func TestAskGuest_guest_tellsItsAddresses(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", agentGuest(t, "maqet.name=www"), agentProbe, func(s *manifest.VirtualMachineSpec) {
		s.NICs = []manifest.NIC{{Name: "lan", User: &manifest.UserNet{}}}
	})
	r.start(vm, false)
	r.untilReady(vm)
	r.timing.AgentLook = patient
	info := r.AskGuest(t.Context(), "web")
	if info == nil || info.Hostname != "www" || info.OS == nil || info.OS.ID != "maqet-guest" || info.AgentVersion == "" || len(info.Interfaces) < 2 {
		t.Fatalf("info = %+v", info)
	}
}
