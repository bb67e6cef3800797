package reconcile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// sizes compares the sizes of the disks that maqet makes with those of their
// images. Grown is what can be done about it now, owed what a restart does. An
// image is never shrunk: that is a problem for a person.
func (p *planner) sizes() (grow []Step, owed []Change) {
	for _, d := range p.spec.Disks {
		have := manifest.Quantity(imageSize(&p.obs, d.Name))
		if d.Size == 0 || have == 0 || have == d.Size {
			continue
		}
		if p.obs.Guest == nil && p.obs.Files[d.Name].Lost {
			continue // qemu-img can do nothing with it before what it reads from is back
		}
		if g := p.obs.Guest; g != nil && !g.Brief && !p.there(driver.Part{List: driver.ListDisks, Name: d.Name}) {
			continue // QEMU grows it once it has it
		}
		ch := Change{Path: "spec.disks[" + d.Name + "].size", From: have.String(), To: d.Size.String(), Class: ClassLive}
		switch {
		case d.Size < have:
			ch.Class, ch.Pending = ClassDataLoss, true
			ch.Why = "shrinking an image would cut data off; nothing is done"
			p.change(ch)
			p.problem(ReasonDiskSize,
				fmt.Sprintf("disk %s is %s, its manifest says %s; an image is never shrunk, since what lies beyond its new end would be lost", d.Name, have, d.Size),
				"set "+ch.Path+" back to "+have.String())
		case p.obs.Guest != nil && !growsLive(p.obs.Guest, d.Name):
			ch.Class, ch.Why = ClassRestart, "QEMU cannot grow an NVMe disk while the guest runs"
			owed = append(owed, ch)
		default:
			ch.Why = "the image is grown"
			if p.obs.Guest != nil {
				ch.Why = "by block_resize; the guest grows its filesystem itself"
			}
			p.change(ch)
			grow = append(grow, Step{Kind: StepGrowDisk, Disk: d.Name, Size: d.Size, Why: "from " + have.String() + " to " + d.Size.String()})
		}
	}
	return grow, owed
}

// growsLive tells whether QEMU can grow a drive that it has open.
func growsLive(g *driver.Guest, name string) bool {
	return !slices.ContainsFunc(g.Disks, func(d driver.GDisk) bool { return d.Name == name && d.Driver == "nvme" })
}

// isNVMe tells whether some disk of maqet's own is grown only while nobody has it open.
func isNVMe(d manifest.Disk) bool { return d.Size != 0 && d.Bus == manifest.BusNVMe }

// throttles compares the limits of the drives that the guest has.
func (p *planner) throttles() {
	if p.obs.Guest.Brief {
		return
	}
	for i := range p.spec.Disks {
		d := &p.spec.Disks[i]
		at := slices.IndexFunc(p.obs.Guest.Disks, func(g driver.GDisk) bool { return g.Name == d.Name })
		if at < 0 || p.obs.Guest.Disks[at].Empty {
			continue
		}
		iops, bps := d.Throttle.Limits()
		have := p.obs.Guest.Disks[at]
		if have.IOPS == iops && have.BPS == bps {
			continue
		}
		drift := p.launchedLimits(d.Name, iops, bps)
		var words []string
		for _, limit := range []struct {
			key      string
			from, to int64
			text     func(int64) string
		}{{"iops", have.IOPS, iops, iopsText}, {"bps", have.BPS, bps, bpsText}} {
			if limit.from == limit.to {
				continue
			}
			p.change(Change{
				Path: "spec.disks[" + d.Name + "].throttle." + limit.key, From: limit.text(limit.from), To: limit.text(limit.to),
				Class: ClassLive, Why: "by block_set_io_throttle", Drift: drift,
			})
			words = append(words, limit.key+" "+orNoLimit(limit.text(limit.to)))
		}
		p.step(Step{Kind: StepThrottleDisk, Disk: d.Name, Throttle: d.Throttle, Why: strings.Join(words, ", ")})
	}
}

// launchedLimits tells whether the guest was launched with these limits.
func (p *planner) launchedLimits(name string, iops, bps int64) bool {
	if p.obs.Launched == nil {
		return false
	}
	for i := range p.obs.Launched.Spec.Disks {
		if d := &p.obs.Launched.Spec.Disks[i]; d.Name == name {
			i, b := d.Throttle.Limits()
			return i == iops && b == bps
		}
	}
	return false
}

// iopsText and bpsText write a limit as a manifest does; none is absent.
func iopsText(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func bpsText(n int64) string {
	if n == 0 {
		return ""
	}
	return manifest.Quantity(n).String()
}

func orNoLimit(text string) string {
	if text == "" {
		return "without limit"
	}
	return text
}
