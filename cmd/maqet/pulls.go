package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/cheggaaa/pb/v3"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/reconcile"
)

// plainEvery is how often the progress of an image is told where there is no terminal.
const plainEvery = 10 * time.Second

// barTemplate is a live line of an image: how much of how much, a bar, rate and
// the time left. The library fits it into the terminal's width.
const barTemplate = `{{string . "name"}} {{counters . }} {{bar . "[" "=" ">" " " "]"}} {{percent . }} {{speed . }} {{rtime . "%s left" "" ""}}`

// pulls are the images that are being fetched, as a person is told of them.
type pulls struct {
	env environment
	// going are those images, by name.
	going map[string]*pulling
}

// pulling is one image that is being fetched.
type pulling struct {
	now driver.Transfer
	// bar renders the live line of what has a size; nil where nobody looks.
	bar *pb.ProgressBar
	// told is when it was last told in plain words.
	told time.Time
}

// take notes what an event tells of an image.
func (p *pulls) take(ev reconcile.Event, live bool, columns int) {
	if ev.Done || ev.Err != nil {
		delete(p.going, ev.Image)
		return
	}
	if ev.Transfer == nil {
		return
	}
	one := p.going[ev.Image]
	if one == nil {
		one = &pulling{}
		p.going[ev.Image] = one
	}
	fresh := one.now.What != ev.Transfer.What || one.now.PID != ev.Transfer.PID
	one.now = *ev.Transfer
	switch {
	case !live:
		p.plain(ev.Image, one, fresh)
	case one.now.Total == 0:
		one.bar = nil
	case fresh || one.bar == nil:
		one.bar = newBar(ev.Image, one.now, columns)
	default:
		one.bar.SetCurrent(one.now.Done).SetWidth(columns)
	}
}

// newBar is a bar that draws nothing itself: its text is one of the live lines.
func newBar(image string, t driver.Transfer, columns int) *pb.ProgressBar {
	bar := pb.New64(t.Total).SetTemplateString(barTemplate)
	bar.Set(pb.Static, true).Set(pb.Bytes, true).Set("name", "img/"+image+" "+t.What).SetWriter(io.Discard).SetWidth(columns)
	return bar.SetCurrent(t.Done).Start()
}

// lines are the live lines.
func (p *pulls) lines() []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(p.going)) {
		one := p.going[name]
		if one.bar != nil {
			lines = append(lines, one.bar.String())
			continue
		}
		lines = append(lines, fmt.Sprintf("img/%s %s ... %ds", name, sizeWords(one.now), int(time.Since(one.now.Since).Seconds())))
	}
	return lines
}

// plain tells of an image in a line of its own, when something else begins and from
// time to time.
func (p *pulls) plain(image string, one *pulling, fresh bool) {
	now := time.Now()
	if !fresh && now.Sub(one.told) < plainEvery {
		return
	}
	one.told = now
	text := sizeWords(one.now)
	if rate := rateOf(one.now, now); rate > 0 {
		text += fmt.Sprintf(", %s/s", byteWords(rate))
		if left := one.now.Total - one.now.Done; one.now.Total > 0 && left > 0 {
			text += fmt.Sprintf(", %s left", (time.Duration(left/rate+1) * time.Second).String())
		}
	}
	fmt.Fprintf(p.env.err, "img/%s %s\n", image, text)
}

// sizeWords is "fetching, 12.0 MiB of 2.1 GiB".
func sizeWords(t driver.Transfer) string {
	switch {
	case t.Total > 0:
		return fmt.Sprintf("%s, %s of %s", t.What, byteWords(t.Done), byteWords(t.Total))
	case t.Done > 0:
		return fmt.Sprintf("%s, %s", t.What, byteWords(t.Done))
	default:
		return t.What
	}
}

// rateOf is how many bytes came each second; 0 while that cannot be told.
func rateOf(t driver.Transfer, now time.Time) int64 {
	lasted := now.Sub(t.Since)
	if lasted < time.Second {
		return 0
	}
	return int64(float64(t.Done-t.From) / lasted.Seconds())
}

// byteWords is a number of bytes for reading.
func byteWords(n int64) string {
	const unit = 1 << 10
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, i := float64(n)/unit, 0
	for value >= unit && i < 4 {
		value /= unit
		i++
	}
	return fmt.Sprintf("%.1f %s", value, []string{"KiB", "MiB", "GiB", "TiB", "PiB"}[i])
}
