package qmp_test

import (
	"testing"
	"time"

	goqemu "github.com/digitalocean/go-qemu/qemu"
	goqmp "github.com/digitalocean/go-qemu/qmp"
)

// go-qemu's own higher layer runs over Conn, on real QEMU: that is what
// implementing its interface is for.
func TestQEMU_goQEMUDomainOverConn_works(t *testing.T) {
	conn := dialQEMU(t)
	domain, err := goqemu.NewDomain(conn, "none")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := domain.Close(); err != nil {
			t.Errorf("close the domain: %v", err)
		}
	})
	if version, err := domain.Version(); err != nil || version == "" {
		t.Errorf("Version: %q, %v", version, err)
	}
	if status, err := domain.Status(); err != nil || status != goqemu.StatusPreLaunch {
		t.Errorf("Status: %v, %v, want prelaunch", status, err)
	}
	if known, err := domain.Supported("snapshot-save"); err != nil || !known {
		t.Errorf("Supported(snapshot-save): %v, %v", known, err)
	}
	if devices, err := domain.BlockDevices(); err != nil || len(devices) != 0 {
		t.Errorf("BlockDevices: %v, %v, want none", devices, err)
	}
	events, done, err := domain.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer close(done)
	// With -machine none there is nothing to run, and cont is answered by RESUME.
	if _, err := domain.Run(goqmp.Command{Execute: "cont"}); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-events:
		if e.Event != "RESUME" {
			t.Errorf("event %s, want RESUME", e.Event)
		}
	case <-time.After(bound):
		t.Error("no event came")
	}
}
