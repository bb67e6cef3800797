package manifest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedule is when something is due again and again.
type Schedule struct {
	cron cron.Schedule
	zone *time.Location
}

// ParseSchedule reads cron's five fields, or a descriptor such as @daily, in the zone
// of that IANA name; none is UTC.
func ParseSchedule(schedule, zone string) (Schedule, error) {
	location, err := parseZone(zone)
	if err != nil {
		return Schedule{}, err
	}
	if strings.Contains(schedule, "TZ=") {
		return Schedule{}, errors.New("the zone has a key of its own, timeZone")
	}
	if strings.HasPrefix(schedule, "@every") || schedule == "@reboot" {
		return Schedule{}, fmt.Errorf("%s names no times of a clock", schedule)
	}
	parsed, err := cron.ParseStandard(schedule)
	if err != nil {
		return Schedule{}, fmt.Errorf("%q is no schedule: %w", schedule, err)
	}
	return Schedule{parsed, location}, nil
}

func parseZone(zone string) (*time.Location, error) {
	// "Local" would mean another time on another host.
	if zone == "Local" {
		return nil, errors.New("name the zone itself, such as Europe/Berlin")
	}
	location, err := time.LoadLocation(zone)
	if err != nil {
		return nil, fmt.Errorf("%q is no time zone: %w", zone, err)
	}
	return location, nil
}

// Next is the first time after t that the schedule names; zero when there is none,
// as of the 30th of February.
func (s Schedule) Next(t time.Time) time.Time {
	next := s.cron.Next(t.In(s.zone))
	if next.IsZero() {
		return time.Time{}
	}
	return next.UTC()
}

// Zone is where the schedule's days and weeks begin.
func (s Schedule) Zone() *time.Location { return s.zone }

// snapshots looks at the schedule and at what is kept.
func (v *validator) snapshots(s *Snapshots) {
	if s == nil {
		return
	}
	v.schedule("spec.snapshots", s.Schedule, s.TimeZone)
	v.keep("spec.snapshots.keep", s.Keep, "snapshot")
}

// schedule looks at a schedule and its zone.
func (v *validator) schedule(path, schedule, timeZone string) {
	zone := ""
	if v.check(path+".timeZone", timeZone, func(name string) error { _, err := parseZone(name); return err }) {
		zone = timeZone
	}
	v.check(path+".schedule", schedule, func(text string) error {
		parsed, err := ParseSchedule(text, zone)
		if err == nil && parsed.Next(time.Unix(0, 0)).IsZero() {
			err = fmt.Errorf("%q names a day that never comes", text)
		}
		return err
	})
}

// keep looks at which of what a schedule makes stays.
func (v *validator) keep(path string, keep *Keep, what string) {
	if keep == nil {
		return
	}
	total := 0
	for _, count := range []struct {
		key   string
		value int
	}{{"last", keep.Last}, {"hourly", keep.Hourly}, {"daily", keep.Daily}, {"weekly", keep.Weekly}, {"monthly", keep.Monthly}} {
		if count.value < 0 {
			v.fault(path+"."+count.key, "must not be negative", "leave the key out to keep none for that reason")
		}
		total += count.value
	}
	if total == 0 && !v.isBroken(path) {
		v.fault(path, "keeps no "+what+" at all", "name a count such as last: 7, or leave keep out to keep all")
	}
}

// Keeps tells which of the times, newest first, one of the counts keeps. Days and weeks
// begin as they do in the zone.
func (k Keep) Keeps(times []time.Time, zone *time.Location) []bool {
	kept := make([]bool, len(times))
	for _, rule := range []struct {
		count  int
		period func(int, time.Time) string
	}{
		{k.Last, func(i int, _ time.Time) string { return strconv.Itoa(i) }},
		{k.Hourly, func(_ int, t time.Time) string { return t.Format("2006-01-02 15 -07") }},
		{k.Daily, func(_ int, t time.Time) string { return t.Format(time.DateOnly) }},
		{k.Weekly, func(_ int, t time.Time) string { year, week := t.ISOWeek(); return fmt.Sprint(year, " ", week) }},
		{k.Monthly, func(_ int, t time.Time) string { return t.Format("2006-01") }},
	} {
		seen := map[string]bool{}
		for i, t := range times {
			if len(seen) == rule.count {
				break
			}
			if period := rule.period(i, t.In(zone)); !seen[period] {
				seen[period], kept[i] = true, true
			}
		}
	}
	return kept
}
