package reconcile

import (
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// word says that the root disk shall be made anew.
func (s *scene) word(from, to string) *scene {
	s.want.Machine.Recreate = map[string]state.Recreation{"root": {From: from, To: to, Since: t0, Who: "ann"}}
	return s
}

// away is an image that is not here.
func away() driver.ImageState { return driver.ImageState{} }

func TestPlan_diskOfAnImage_waitsForItAndIsMadeOnce(t *testing.T) {
	pulling, failed := away(), away()
	pulling.Pull, failed.Failed = &driver.Transfer{What: "fetching"}, "no route"
	unusable := driver.ImageState{Err: "somebody has changed it"}
	small := func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{Name: "root", Image: "a", Size: simImageSize / 2}}
	}
	two := func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{Name: "root", Image: "a"}, {Name: "data", Image: "b"}, {Name: "more", Image: "a"}}
	}
	paused := func(s *manifest.VirtualMachineSpec) { of("a")(s); s.PowerState = manifest.PowerStopped }
	started := "identity; create-disk root; start;"
	tests := map[string]struct {
		scene  *scene
		want   string
		reason string
	}{
		"away":             {newScene(of("a")).image("a", "aa", away()), "wait,images", ReasonImagePending},
		"being fetched":    {newScene(of("a")).image("a", "aa", pulling), "wait,images", ReasonImagePulling},
		"failed before":    {newScene(of("a")).image("a", "aa", failed), "wait,images", ReasonImagePullFailed},
		"here":             {newScene(of("a")).image("a", "aa", here()), started, ""},
		"of no object":     {newScene(of("a")), "!" + ReasonImageMissing, ""},
		"unusable":         {newScene(of("a")).image("a", "aa", unusable), "!" + ReasonImageUnusable, ""},
		"too small a disk": {newScene(small).image("a", "aa", here()), "!" + ReasonDiskTooSmall, ""},
		"two of three":     {newScene(two).image("a", "aa", here()).image("b", "bb", away()), "wait,images", ReasonImagePending},
		"all of three": {
			newScene(two).image("a", "aa", here()).image("b", "bb", here()),
			"identity; create-disk root; create-disk data; create-disk more; start;", "",
		},
		"stopped machine": {newScene(paused).image("a", "aa", away()), "", ""},
		"made already":    {newScene(of("a")).image("a", "aa", here()).up(), "", ""},
		"made already, and the image is pruned": {newScene(of("a")).image("a", "aa", here()).up().with(func(s *scene) {
			s.obs.Images["a"] = driver.ImageState{Digest: digest("aa")}
		}), "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := tt.scene.plan()
			if got := summary(p); got != tt.want {
				t.Errorf("plan %q, want %q", got, tt.want)
			}
			if got := StatusOf(tt.scene.want, tt.scene.obs, p, t0); tt.reason != "" && (got.Phase != PhasePending || got.Reason != tt.reason) {
				t.Errorf("phase %s, reason %s", got.Phase, got.Reason)
			}
		})
	}
}

func TestPlan_imageOfADiskChanges_costsTheDiskAndWaitsForAWord(t *testing.T) {
	run := func(s *scene) *scene { return s.image("a", "bb", here()) }
	newer := func() *scene { return run(newScene(of("a")).image("a", "aa", here()).up()) }
	down := func() *scene { return newer().down(driver.EndStopped).recorded() }
	absent := func(s *scene) { s.obs.Images["a"] = driver.ImageState{Digest: digest("bb")} }
	edit := func(f func(*manifest.VirtualMachineSpec)) func(*scene) { return func(s *scene) { s.edit(f) } }
	tests := map[string]struct {
		scene *scene
		want  string
		class Class
		path  string
		owed  bool
	}{
		"running":                      {newer(), "", ClassDataLoss, "spec.disks[root].image", true},
		"running, a restart allowed":   {newer().with(func(s *scene) { s.opt.AllowRestart = true }), "", ClassDataLoss, "spec.disks[root].image", true},
		"down, comes up as it was":     {down(), "start;", ClassDataLoss, "spec.disks[root].image", true},
		"never started":                {down().with(func(s *scene) { s.want.Machine.StartedDisks = nil }), "start;", ClassRecreate, "spec.disks[root].image", true},
		"the image is gone":            {newer().with(func(s *scene) { delete(s.obs.Images, "a") }), "", "", "", false},
		"no image any more":            {newer().with(edit(func(s *manifest.VirtualMachineSpec) { s.Disks[0].Image, s.Disks[0].Size = "", simImageSize })), "", ClassDataLoss, "spec.disks[root].image", true},
		"a file that was never taken":  {newer().with(func(s *scene) { s.obs.Images["a"] = driver.ImageState{} }), "", ClassDataLoss, "spec.disks[root].image", true},
		"said, but not fetched":        {newer().word(digest("aa"), digest("bb")).with(absent), "wait,images", ClassDataLoss, "spec.disks[root].image", false},
		"said":                         {newer().word(digest("aa"), digest("bb")), "powerdown(Restart,1m0s);", ClassDataLoss, "spec.disks[root].image", false},
		"said of another image":        {newer().word(digest("aa"), digest("cc")), "", ClassDataLoss, "spec.disks[root].image", true},
		"said of another disk":         {newer().word(digest("cc"), digest("bb")), "", ClassDataLoss, "spec.disks[root].image", true},
		"said, and down":               {down().word(digest("aa"), digest("bb")), "set-aside-disk root; create-disk root; start;", ClassDataLoss, "spec.disks[root].image", false},
		"said, down, not fetched":      {down().word(digest("aa"), digest("bb")).with(absent), "wait,images", ClassDataLoss, "spec.disks[root].image", false},
		"said, and to be stopped":      {down().word(digest("aa"), digest("bb")).with(edit(power(manifest.PowerStopped))), "set-aside-disk root; create-disk root;", ClassDataLoss, "spec.disks[root].image", false},
		"said, to be stopped, running": {newer().word(digest("aa"), digest("bb")).with(edit(power(manifest.PowerStopped))), "powerdown(Stop,1m0s);", "", "", false},
		"said of no image": {newer().word(digest("aa"), "").with(edit(func(s *manifest.VirtualMachineSpec) {
			s.Disks[0].Image, s.Disks[0].Size = "", simImageSize
		})), "powerdown(Restart,1m0s);", ClassDataLoss, "spec.disks[root].image", false},
		"cut off between": {down().word(digest("aa"), digest("bb")).with(func(s *scene) { delete(s.obs.Files, "root") }), "create-disk root; start;", "", "", false},
		"lost, and another word": {
			down().word(digest("aa"), digest("cc")).with(func(s *scene) { delete(s.obs.Files, "root") }), "!" + ReasonDiskLost, "", "", false,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := tt.scene.plan()
			if got := summary(p); got != tt.want {
				t.Errorf("plan %q, want %q", got, tt.want)
			}
			var found Change
			for _, c := range p.Changes {
				if strings.HasSuffix(c.Path, ".image") {
					found = c
				}
			}
			if found.Path != tt.path || found.Class != tt.class || found.Pending != tt.owed {
				t.Errorf("change %+v, want path %q, class %q, pending %v", found, tt.path, tt.class, tt.owed)
			}
			is := conditionOf(StatusOf(tt.scene.want, tt.scene.obs, p, t0).Conditions, ConditionRecreateRequired)
			if (is.Status == "True") != tt.owed {
				t.Errorf("condition %+v", is)
			}
			if got := (Result{Plan: p}).Outcome(); got.Pending != tt.owed {
				t.Errorf("outcome %+v", got)
			}
		})
	}
}

// TestPlan_newDiskOfAnImage_isFetchedBeforeTheGuestIsStopped allows a restart that
// a new disk needs.
func TestPlan_newDiskOfAnImage_isFetchedBeforeTheGuestIsStopped(t *testing.T) {
	more := func(s *manifest.VirtualMachineSpec) {
		s.Disks = append(s.Disks, manifest.Disk{Name: "data", Image: "b", Size: simImageSize})
	}
	s := newScene().up().edit(more).image("b", "bb", away())
	s.obs.Files["data"] = driver.DiskFile{Path: "/disks/data"}
	s.opt.AllowRestart = true
	if got := summary(s.plan()); got != "wait,images" {
		t.Errorf("not here: %q", got)
	}
	s.image("b", "bb", driver.ImageState{Err: "it is damaged"})
	if got := summary(s.plan()); got != "!"+ReasonImageUnusable {
		t.Errorf("unusable: %q", got)
	}
	s.image("b", "bb", here())
	if got := summary(s.plan()); got != "powerdown(Restart,1m0s);" {
		t.Errorf("here: %q", got)
	}
	s.opt.AllowRestart = false
	s.image("b", "bb", away())
	if got := summary(s.plan()); got != "" {
		t.Errorf("not allowed: %q", got)
	}
}

func TestPlan_imageUnderADiskLost_isFetchedAgainOrSaid(t *testing.T) {
	lost := func(f func(*scene)) *scene {
		s := newScene(of("a")).image("a", "aa", here()).up().down(driver.EndStopped).recorded()
		file := s.obs.Files["root"]
		file.Backing, file.Lost = "/images/old", true
		s.obs.Files["root"] = file
		f(s)
		return s
	}
	for name, tt := range map[string]struct {
		scene *scene
		want  string
	}{
		"named still":   {lost(func(s *scene) { s.obs.Images["a"] = driver.ImageState{Digest: digest("aa")} }), "wait,images"},
		"named no more": {lost(func(s *scene) { s.obs.Images["a"] = driver.ImageState{Digest: digest("bb")} }), "!" + ReasonImageLost},
		"elsewhere":     {lost(func(*scene) {}), "!" + ReasonImageLost},
		"no image": {lost(func(s *scene) {
			s.edit(func(v *manifest.VirtualMachineSpec) { v.Disks[0].Image, v.Disks[0].Size = "", simImageSize })
		}), "!" + ReasonImageLost},
	} {
		t.Run(name, func(t *testing.T) {
			if got := summary(tt.scene.plan()); got != tt.want {
				t.Errorf("plan %q, want %q", got, tt.want)
			}
		})
	}
}

// TestForecast_images_showsFetchingAndMakingAnew has the whole way foreseen.
func TestForecast_images_showsFetchingAndMakingAnew(t *testing.T) {
	plans := func(s *scene) string {
		var all []string
		for _, p := range Forecast(s.want, s.obs, s.opt, s.now) {
			all = append(all, summary(p))
		}
		return strings.Join(all, " | ")
	}
	s := newScene(of("a")).image("a", "aa", away())
	if got, want := plans(s), "wait,images | identity; create-disk root; start; | "; got != want {
		t.Errorf("new: %q, want %q", got, want)
	}
	s = newScene(of("a")).image("a", "", away())
	if got, want := plans(s), "wait,images | identity; create-disk root; start; | "; got != want {
		t.Errorf("a file never taken: %q, want %q", got, want)
	}
	s = newScene(of("a")).image("a", "aa", here()).up().image("a", "bb", away()).word(digest("aa"), digest("bb"))
	want := "wait,images | powerdown(Restart,1m0s); | wait,exit,1m0s | record-end; set-aside-disk root; create-disk root; start; | "
	if got := plans(s); got != want {
		t.Errorf("anew: %q, want %q", got, want)
	}
	if s.obs.Images["a"].Present || s.obs.Files["root"].Image != digest("aa") || len(s.want.Machine.Recreate) != 1 {
		t.Error("the forecast changed what it was given")
	}
}

// TestPlan_heldOrDeleted_fetchesNothing has a person's word go first.
func TestPlan_heldOrDeleted_fetchesNothing(t *testing.T) {
	s := newScene(of("a")).image("a", "aa", away())
	s.want.Machine.Hold = &state.Hold{Who: "ann", Since: t0, Generation: 1}
	if got := summary(s.plan()); got != "held" {
		t.Errorf("held: %q", got)
	}
	s.want.Machine.Hold = nil
	s.want.Machine.Deleting = &state.Deletion{Since: t0.Add(time.Second), Who: "ann"}
	if got := summary(s.plan()); got != "forget;" {
		t.Errorf("deleted: %q", got)
	}
}
