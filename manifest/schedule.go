package manifest

import (
	"errors"
	"fmt"
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
	zone := ""
	if v.check("spec.snapshots.timeZone", s.TimeZone, func(name string) error { _, err := parseZone(name); return err }) {
		zone = s.TimeZone
	}
	v.check("spec.snapshots.schedule", s.Schedule, func(text string) error {
		parsed, err := ParseSchedule(text, zone)
		if err == nil && parsed.Next(time.Unix(0, 0)).IsZero() {
			err = fmt.Errorf("%q names a day that never comes", text)
		}
		return err
	})
	if s.Keep == nil {
		return
	}
	total := 0
	for _, count := range []struct {
		key   string
		value int
	}{{"last", s.Keep.Last}, {"hourly", s.Keep.Hourly}, {"daily", s.Keep.Daily}, {"weekly", s.Keep.Weekly}, {"monthly", s.Keep.Monthly}} {
		if count.value < 0 {
			v.fault("spec.snapshots.keep."+count.key, "must not be negative", "leave the key out to keep none for that reason")
		}
		total += count.value
	}
	if total == 0 && !v.isBroken("spec.snapshots.keep") {
		v.fault("spec.snapshots.keep", "keeps no snapshot at all", "name a count such as last: 7, or leave keep out to keep all")
	}
}
