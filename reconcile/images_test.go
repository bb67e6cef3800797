package reconcile

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

func TestApply_diskOfAnImage_fetchesWithoutTheLockAndStarts(t *testing.T) {
	inWorld(t, func(w *world) {
		report := w.apply(ApplyOptions{}, newVM("web", of("a")), newImage("a", "/a", "aa"))
		w.expectCalls("web create root", "web start")
		if got := w.host.images.begun(); got != "/a" {
			t.Errorf("fetched %q", got)
		}
		if report.Failed || report.Pending || phases(report)["web"] != PhaseRunning {
			t.Errorf("report %+v", report)
		}
		var told []string
		for _, ev := range w.events {
			if ev.Image != "" {
				told = append(told, ev.Image+" "+ev.Message)
			}
		}
		want := []string{"a fetching image a", "a fetching image a", "a image a is here: qcow2 of 1Gi (sha256:aa0000000000)"}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
		w.apply(ApplyOptions{}, newVM("web", of("a")), newImage("a", "/a", "aa"))
		if got := w.host.images.begun(); got != "/a" {
			t.Errorf("applied again: fetched %q", got)
		}
	})
}

func TestApply_imageCannotBeFetched_failsAndGoesOnLater(t *testing.T) {
	inWorld(t, func(w *world) {
		w.host.images.fail["/a"] = errors.New("the server refused: 404 Not Found")
		set := []any{newVM("web", of("a")), newVM("db"), newImage("a", "/a", "aa")}
		report := w.apply(ApplyOptions{}, set...)
		if !report.Failed || phases(report)["db"] != PhaseRunning {
			t.Errorf("report %+v", report)
		}
		err := report.Results[1].Err
		if err == nil || err.Error() != "pull img/a: the server refused: 404 Not Found" {
			t.Errorf("error %v", err)
		}
		views, err := w.engine.Views(w.Context(), []string{"web"}, driver.DepthBrief)
		if err != nil || views[0].Status.Phase != PhasePending || views[0].Status.Reason != ReasonImagePullFailed {
			t.Errorf("status %+v, %v", views[0].Status, err)
		}
		w.host.images.set(func() { clear(w.host.images.fail) })
		if report := w.apply(ApplyOptions{}, set...); report.Failed || phases(report)["web"] != PhaseRunning {
			t.Errorf("later: %+v", report)
		}
	})
}

// TestApply_interruptedWhileFetching_saysWhatItWaitedFor ends like Ctrl-C, and by
// the time that was given.
func TestApply_interruptedWhileFetching_saysWhatItWaitedFor(t *testing.T) {
	inWorld(t, func(w *world) {
		set := setOf(newVM("web", of("a")), newImage("a", "/a", "aa"))
		ctx, cancel := context.WithTimeout(w.Context(), 3*time.Second)
		defer cancel()
		time.AfterFunc(2*time.Second, cancel)
		report, err := w.engine.Apply(ctx, set, ApplyOptions{})
		if err != nil || !report.Interrupted || report.Failed || !strings.Contains(report.Results[0].Err.Error(), "still waiting for image a to be fetched") {
			t.Errorf("report %+v, %v", report, err)
		}
		report, err = w.engine.Apply(w.Context(), set, ApplyOptions{Timeout: time.Second})
		if err != nil || !report.Pending || report.Failed {
			t.Errorf("report %+v, %v", report, err)
		}
		if w.host.images.cancelled != 2 {
			t.Errorf("%d fetches were given up", w.host.images.cancelled)
		}
	})
}

// TestDelete_whileTheImageIsFetched_getsTheLock is a person who changes his mind.
func TestDelete_whileTheImageIsFetched_getsTheLock(t *testing.T) {
	inWorld(t, func(w *world) {
		ended := make(chan Report)
		go func() {
			report, err := w.engine.Apply(w.Context(), setOf(newVM("web", of("a")), newImage("a", "/a", "aa")), ApplyOptions{})
			if err != nil {
				t.Error(err)
			}
			ended <- report
		}()
		synctest.Wait()
		began := time.Now()
		result, err := w.newEngine().Delete(w.Context(), "web", DeleteOptions{})
		if err != nil || !result.Gone || time.Since(began) > time.Second {
			t.Errorf("delete: %+v, %v, after %s", result, err, time.Since(began))
		}
		if report := <-ended; !report.Results[0].Gone {
			t.Errorf("apply: %+v", report.Results[0])
		}
		w.expectCalls("web forget false")
	})
}

// TestApply_recreateDisk_keepsTheOldOneAndIsDoneOnce walks the whole way.
func TestApply_recreateDisk_keepsTheOldOneAndIsDoneOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		vm := newVM("web", of("a"))
		opt := ApplyOptions{Recreate: []DiskName{{"web", "root"}}}
		// There is nothing to make anew yet.
		w.apply(opt, vm, newImage("a", "/a", "aa"))
		w.expectCalls("web create root", "web start")

		report := w.apply(ApplyOptions{}, vm, newImage("a", "/b", "bb"))
		if !report.Pending || report.Failed {
			t.Errorf("without a word: %+v", report)
		}
		w.expectCalls("web create root", "web start")
		plan, err := w.engine.Plan(w.Context(), setOf(vm, newImage("a", "/b", "bb")), opt)
		if err != nil || plan.Class != ClassDataLoss || plan.Empty {
			t.Errorf("plan %+v, %v", plan, err)
		}
		if len(w.record("web").Recreate) > 0 {
			t.Error("the plan has written the word down")
		}

		report = w.apply(opt, vm, newImage("a", "/b", "bb"))
		if report.Pending || report.Failed || phases(report)["web"] != PhaseRunning {
			t.Errorf("with a word: %+v", report)
		}
		w.expectCalls("web create root", "web start", "web powerdown", "web aside root", "web create root", "web start")
		if m := w.record("web"); len(m.Recreate) > 0 || !slices.Equal(m.StartedDisks, []string{"root"}) {
			t.Errorf("record %+v", m)
		}
		var where string
		for _, s := range report.Results[0].Steps {
			if s.Kind == StepSetAside {
				where = s.Message
			}
		}
		if where != "moved disk root aside, to /kept/web/root" {
			t.Errorf("told %q", where)
		}
		w.apply(opt, vm, newImage("a", "/b", "bb"))
		w.expectCalls("web create root", "web start", "web powerdown", "web aside root", "web create root", "web start")
	})
}

// TestApply_recreateDiskCutOff_goesOnByItself kills whoever makes a disk anew after
// each step: the word stands until it is done.
func TestApply_recreateDiskCutOff_goesOnByItself(t *testing.T) {
	for _, at := range []string{"web powerdown", "web aside root", "web create root", "web start"} {
		t.Run(at, func(t *testing.T) {
			inWorld(t, func(w *world) {
				vm := newVM("web", of("a"))
				w.apply(ApplyOptions{}, vm, newImage("a", "/a", "aa"))
				w.host.fail[at] = errors.New("cut off")
				w.apply(ApplyOptions{Recreate: []DiskName{{"web", "root"}}}, vm, newImage("a", "/b", "bb"))
				delete(w.host.fail, at)
				// Anybody who converges the machine goes on.
				report := w.apply(ApplyOptions{}, vm, newImage("a", "/b", "bb"))
				if report.Failed || report.Pending || w.host.obs("web").Files["root"].Image != digest("bb") || len(w.record("web").Recreate) > 0 {
					t.Errorf("report %+v", report)
				}
				if n := slices.Index(w.host.called(), "web aside root"); n < 0 {
					t.Errorf("calls %q", w.host.called())
				}
			})
		})
	}
}

func TestApply_recreateDisk_thatCannotBe_isRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		file := func(s *manifest.VirtualMachineSpec) {
			s.Disks = append(s.Disks, manifest.Disk{Name: "iso", File: "/x.iso", Media: manifest.MediaCDROM})
		}
		for _, tt := range []struct {
			disk  DiskName
			is    error
			words string
		}{
			{DiskName{"nobody", "root"}, ErrNotFound, "no such machine"},
			{DiskName{"web", "data"}, ErrNotFound, "no such disk"},
			{DiskName{"web", "iso"}, ErrNotFound, "none of maqet's"},
			{DiskName{"file", "root"}, ErrProblem, "maqet image pull b"},
			{DiskName{"lost", "root"}, ErrNotFound, "img/c"},
		} {
			set := setOf(newVM("web", file), newVM("file", of("b")), newVM("lost", of("c")), newImage("b", "/b", ""))
			_, err := w.engine.Apply(w.Context(), set, ApplyOptions{Recreate: []DiskName{tt.disk}})
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.words) {
				t.Errorf("%v: %v", tt.disk, err)
			}
		}
		w.expectCalls()
	})
}

func TestApply_imagesAlone_areRememberedAndPruned(t *testing.T) {
	inWorld(t, func(w *world) {
		actions := func(r Report) map[string]ObjectAction {
			out := map[string]ObjectAction{}
			for _, o := range r.Objects {
				out[o.Object.String()] = o.Action
			}
			return out
		}
		expect := func(r Report, want map[string]ObjectAction) {
			t.Helper()
			if diff := cmp.Diff(want, actions(r)); diff != "" {
				t.Errorf("actions (-want +got):\n%s", diff)
			}
		}
		vm := newVM("web", of("a"))
		expect(w.apply(ApplyOptions{}, newImage("a", "/a", "aa"), newImage("b", "/b", "bb")), map[string]ObjectAction{"img/a": ActionCreated, "img/b": ActionCreated})
		if got := w.host.images.begun(); got != "" {
			t.Errorf("fetched %q, and nothing needs it", got)
		}
		expect(w.apply(ApplyOptions{}, newImage("a", "/a", "aa"), newImage("b", "/b2", "b2"), vm),
			map[string]ObjectAction{"img/a": ActionUnchanged, "img/b": ActionConfigured, "vm/web": ActionCreated})
		expect(w.apply(ApplyOptions{}, vm), map[string]ObjectAction{"img/a": ActionLeft, "img/b": ActionLeft, "vm/web": ActionUnchanged})
		_, err := w.engine.Apply(w.Context(), setOf(vm), ApplyOptions{Prune: true})
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "vm/web") {
			t.Errorf("pruned what is in use: %v", err)
		}
		incomplete := setOf(vm, newImage("a", "/a", "aa"))
		incomplete.Complete = false
		report, err := w.engine.Apply(w.Context(), incomplete, ApplyOptions{Prune: true})
		if err != nil || actions(report)["img/b"] != ActionLeft {
			t.Errorf("an incomplete listing: %+v, %v", report.Objects, err)
		}
		expect(w.apply(ApplyOptions{Prune: true}, vm, newImage("a", "/a", "aa")),
			map[string]ObjectAction{"img/a": ActionUnchanged, "img/b": ActionPruned, "vm/web": ActionUnchanged})
		views, err := w.engine.Images(w.Context(), nil)
		if err != nil || len(views) != 1 || views[0].Status.Phase != ImageReady || !slices.Equal(views[0].Status.UsedBy, []string{"web"}) {
			t.Errorf("images %+v, %v", views, err)
		}
		// A machine that goes in the same breath needs it no more.
		expect(w.apply(ApplyOptions{Prune: true, PruneAll: true}), map[string]ObjectAction{"img/a": ActionPruned, "vm/web": ActionPruned})
	})
}

func TestApply_imageOfAnotherOwner_isRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{Owner: "ann"}, newImage("a", "/a", "aa"))
		_, err := w.engine.Apply(w.Context(), setOf(newImage("a", "/b", "bb")), ApplyOptions{Owner: "bob"})
		if !errors.Is(err, ErrOwned) {
			t.Errorf("got %v", err)
		}
		// A machine of his may be made of it all the same.
		if report := w.apply(ApplyOptions{Owner: "bob"}, newVM("web", of("a"))); report.Failed {
			t.Errorf("report %+v", report)
		}
		if err := w.engine.DeleteImage(w.Context(), "a"); !errors.Is(err, ErrInUse) {
			t.Errorf("delete: %v", err)
		}
		if err := w.engine.DeleteImage(w.Context(), "b"); !errors.Is(err, ErrNotFound) {
			t.Errorf("delete: %v", err)
		}
		if _, err := w.engine.Delete(w.Context(), "web", DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := w.engine.DeleteImage(w.Context(), "a"); err != nil {
			t.Errorf("delete: %v", err)
		}
		if _, err := w.engine.Images(w.Context(), []string{"a"}); !errors.Is(err, ErrNotFound) {
			t.Errorf("images: %v", err)
		}
	})
}

func TestSync_imageChanges_machinesOfItAreLookedAt(t *testing.T) {
	inWorld(t, func(w *world) {
		journal := &listJournal{}
		w.engine.cfg.Journal = journal
		set := setOf(newVM("web", of("a")), newVM("db"), newImage("a", "/a", "aa"))
		if _, err := w.engine.Sync(w.Context(), set, nil, ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
		report, err := w.engine.Sync(w.Context(), setOf(newVM("web", of("a")), newVM("db"), newImage("a", "/b", "bb")), nil, ApplyOptions{})
		if err != nil || !slices.Equal(report.Machines, []string{"web"}) {
			t.Errorf("machines %q, %v", report.Machines, err)
		}
		last := journal.events[len(journal.events)-1]
		if last.Machine != "web" || last.Reason != state.EventConfigured || last.Message != "image a changed" {
			t.Errorf("event %+v", last)
		}
		// A file that is broken now says nothing of the images in it.
		broken := manifest.Errors{{Position: manifest.Position{File: "images.yaml"}, Msg: "not YAML"}}
		incomplete := setOf(newVM("web", of("a")), newVM("db"))
		incomplete.Complete = false
		if report, err = w.engine.Sync(w.Context(), incomplete, broken, ApplyOptions{Prune: true}); err != nil || len(report.Refused) > 0 {
			t.Errorf("report %+v, %v", report, err)
		}
		if views, err := w.engine.Images(w.Context(), nil); err != nil || len(views) != 1 {
			t.Errorf("images %+v, %v", views, err)
		}
	})
}

// listJournal keeps events in memory.
type listJournal struct{ events []state.Event }

func (j *listJournal) Append(_ context.Context, events ...state.Event) error {
	j.events = append(j.events, events...)
	return nil
}

func TestPullImages_several_areFetchedAndTold(t *testing.T) {
	inWorld(t, func(w *world) {
		w.host.images.present["/a"] = true
		w.host.images.fail["/c"] = errors.New("no")
		results := w.engine.PullImages(w.Context(), []*manifest.Image{newImage("a", "/a", "aa"), newImage("b", "/b", "bb"), newImage("c", "/c", "cc")})
		var got []string
		for _, r := range results {
			word := "here"
			switch {
			case r.Err != nil:
				word = r.Err.Error()
			case r.Fetched:
				word = "fetched"
			}
			got = append(got, r.Name+" "+word)
		}
		if diff := cmp.Diff([]string{"a here", "b fetched", "c pull img/c: no"}, got); diff != "" {
			t.Errorf("results (-want +got):\n%s", diff)
		}
		ctx, cancel := context.WithCancel(w.Context())
		time.AfterFunc(time.Second, cancel)
		if r := w.engine.PullImages(ctx, []*manifest.Image{newImage("d", "/d", "dd")}); !errors.Is(r[0].Err, ErrInterrupted) {
			t.Errorf("interrupted: %v", r[0].Err)
		}
	})
}

func TestImageStatus_eachState_hasItsPhase(t *testing.T) {
	for name, tt := range map[string]struct {
		is   driver.ImageState
		want ImagePhase
		note string
	}{
		"nothing":   {driver.ImageState{}, ImagePending, ""},
		"here":      {here(), ImageReady, ""},
		"changed":   {driver.ImageState{Present: true, Changed: true}, ImageReady, "its file has changed since it was taken; maqet image pull takes it anew"},
		"going":     {driver.ImageState{Pull: &driver.Transfer{What: "fetching", Who: "apply"}}, ImagePulling, "fetching, by apply"},
		"failed":    {driver.ImageState{Failed: "404"}, ImageFailed, "404"},
		"unusable":  {driver.ImageState{Err: "damaged", Hint: "move it away"}, ImageFailed, "damaged; move it away"},
		"try again": {driver.ImageState{Failed: "404", Pull: &driver.Transfer{What: "fetching", Who: "watch"}}, ImagePulling, "fetching, by watch"},
	} {
		if got := imageStatusOf(tt.is, nil); got.Phase != tt.want || got.Message != tt.note {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
