package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
	"github.com/maqet/maqet/state"
)

func fetching(done, total int64, since time.Duration) reconcile.Event {
	return reconcile.Event{Image: "debian", Transfer: &driver.Transfer{
		What: "fetching", Done: done, Total: total, Since: time.Now().Add(-since), PID: 1,
	}}
}

func newPulls() (*pulls, *bytes.Buffer) {
	env, _, errs := pipes()
	return &pulls{env: env, going: map[string]*pulling{}}, errs
}

func TestPulls_pipe_tellsBeginningsAndThenSeldom(t *testing.T) {
	// In a bubble the time between two lines is none.
	synctest.Test(t, func(t *testing.T) {
		p, errs := newPulls()
		p.take(fetching(0, 3<<30, 0), false, 0)
		for i := range 1000 {
			p.take(fetching(int64(i)<<20, 3<<30, time.Minute), false, 0)
		}
		p.going["debian"].told = time.Now().Add(-plainEvery)
		p.take(fetching(600<<20, 3<<30, time.Minute), false, 0)
		unpacking := fetching(0, 0, 0)
		unpacking.Transfer.What = "checking"
		p.take(unpacking, false, 0)
		want := "img/debian fetching, 0 B of 3.0 GiB\n" +
			"img/debian fetching, 600.0 MiB of 3.0 GiB, 10.0 MiB/s, 4m8s left\n" +
			"img/debian checking\n"
		if diff := cmp.Diff(want, errs.String()); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
		p.take(reconcile.Event{Image: "debian", Done: true}, false, 0)
		if len(p.going) != 0 {
			t.Error("it goes on for ever")
		}
	})
}

func TestPulls_terminal_isABarThatFits(t *testing.T) {
	// In a bubble the time between two lines is none.
	synctest.Test(t, func(t *testing.T) {
		p, errs := newPulls()
		for _, columns := range []int{79, 120} {
			p.take(fetching(512<<20, 1<<30, time.Minute), true, columns)
			lines := p.lines()
			if len(lines) != 1 || !strings.Contains(lines[0], "img/debian fetching") || !strings.Contains(lines[0], "512.00 MiB / 1.00 GiB") || !strings.Contains(lines[0], "50.00%") {
				t.Errorf("lines %q", lines)
			}
			if len([]rune(lines[0])) > columns {
				t.Errorf("%d characters for %d columns: %q", len(lines[0]), columns, lines[0])
			}
		}
		p.take(fetching(10, 0, time.Minute), true, 79)
		if got := p.lines(); len(got) != 1 || !strings.HasPrefix(got[0], "img/debian fetching, 10 B ... 6") {
			t.Errorf("without a size: %q", got)
		}
		p.take(reconcile.Event{Image: "debian", Err: errors.New("no")}, true, 79)
		if len(p.lines()) != 0 || errs.Len() != 0 {
			t.Errorf("lines %q, printed %q", p.lines(), errs)
		}
	})
}

func TestByteWords_anySize_isShort(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1 << 10: "1.0 KiB", 1536: "1.5 KiB", 5 << 20: "5.0 MiB", 3 << 30: "3.0 GiB", 1 << 62: "4096.0 PiB"} {
		if got := byteWords(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestImageRow_eachPhase_saysWhatIsToBeKnown(t *testing.T) {
	view := func(s reconcile.ImageStatus) reconcile.ImageView {
		return reconcile.ImageView{Image: &state.Image{Owner: "/vms", Object: manifest.Image{
			Metadata: manifest.Metadata{Name: "debian"}, Spec: manifest.ImageSpec{Source: "/a", Format: manifest.FormatQcow2},
		}}, Status: s}
	}
	digest := "sha256:" + strings.Repeat("ab", 32)
	for _, tt := range []struct {
		status reconcile.ImageStatus
		wide   bool
		want   string
	}{
		{reconcile.ImageStatus{Phase: reconcile.ImagePending}, false, "debian Pending qcow2 - - - "},
		{reconcile.ImageStatus{Phase: reconcile.ImageReady, Digest: digest, Size: 2 << 30, UsedBy: []string{"a", "b"}}, true, "debian Ready qcow2 2Gi sha256:abababababab a,b /a /vms "},
		{
			reconcile.ImageStatus{Phase: reconcile.ImagePulling, Pull: &driver.Transfer{Done: 1, Total: 4}, Message: "fetching, by watch"},
			false, "debian Pulling qcow2 - - - 25%, fetching, by watch",
		},
	} {
		if got := strings.Join(imageRow(view(tt.status), tt.wide), " "); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestApplyFlags_disksToMakeAnew_areNamed(t *testing.T) {
	f := applyFlags{recreate: []string{"web/root", "vm/db/data"}}
	got, err := f.disks()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]reconcile.DiskName{{Machine: "web", Disk: "root"}, {Machine: "db", Disk: "data"}}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, bad := range []string{"web", "web/", "/root", "Web/root", "web/Root", "", "web/root/x"} {
		f := applyFlags{recreate: []string{bad}}
		if err := f.check(); !errors.As(err, new(*usageError)) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
