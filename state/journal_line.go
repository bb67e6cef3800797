package state

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A line of the journal is {"crc32c":"HHHHHHHH","event":EVENT}: an object that
// any program reads, with a checksum of the event's own bytes at a fixed place.
const (
	lineHead = `{"crc32c":"`
	lineMid  = `","event":`
	sumLen   = 8
	// mostMessage and mostWord bound what an event says, mostLine what is read
	// as one line: an event is never longer, however it has to be escaped.
	mostMessage = 4 << 10
	mostWord    = 256
	mostLine    = 64 << 10
)

// castagnoli is the polynomial of crc32c, which processors compute.
func castagnoli(data []byte) uint32 {
	return crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
}

// encodeLine is the line of an event, with its newline.
func encodeLine(ev Event) ([]byte, error) {
	ev.Time = ev.Time.UTC()
	ev.Machine, ev.Type, ev.Reason = oneLine(ev.Machine, mostWord), oneLine(ev.Type, mostWord), oneLine(ev.Reason, mostWord)
	ev.Message, ev.Who = oneLine(ev.Message, mostMessage), oneLine(ev.Who, mostWord)
	raw, err := json.Marshal(ev)
	if err != nil {
		return nil, fmt.Errorf("encode an event: %w", err)
	}
	line := make([]byte, 0, len(lineHead)+sumLen+len(lineMid)+len(raw)+2)
	line = append(line, lineHead...)
	line = fmt.Appendf(line, "%08x", castagnoli(raw))
	line = append(line, lineMid...)
	line = append(line, raw...)
	return append(line, '}', '\n'), nil
}

// decodeLine reads a line without its newline. It is false for a damaged one.
func decodeLine(line []byte) (Event, bool) {
	var ev Event
	rest, ok := bytes.CutPrefix(line, []byte(lineHead))
	if !ok || len(rest) < sumLen {
		return ev, false
	}
	sum, rest := rest[:sumLen], rest[sumLen:]
	rest, ok = bytes.CutPrefix(rest, []byte(lineMid))
	raw, closed := bytes.CutSuffix(rest, []byte("}"))
	if !ok || !closed || string(sum) != fmt.Sprintf("%08x", castagnoli(raw)) {
		return ev, false
	}
	return ev, json.Unmarshal(raw, &ev) == nil
}

// oneLine makes text safe to show on one line of a terminal, since a guest or
// QEMU may have written parts of it, and cuts it to so many bytes.
func oneLine(text string, most int) string {
	text = strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || !unicode.IsPrint(r) && !unicode.IsSpace(r) {
			return utf8.RuneError
		}
		return r
	}, text)
	if len(text) <= most {
		return text
	}
	const more = "..."
	cut := most - len(more)
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + more
}

// scanned is what reading a part of the journal came to.
type scanned struct {
	// complete is how many bytes the complete lines took.
	complete int64
	// damaged is how many of them could not be read.
	damaged int
}

// scanLines calls fn for each event in r. A last line without an end is torn, or
// is being written just now; it is left for later.
func scanLines(ctx context.Context, r io.Reader, fn func(Event) error) (scanned, error) {
	var done scanned
	in := bufio.NewReaderSize(r, mostLine)
	long := int64(0) // of an overlong line, what was skipped of it
	for {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			long += int64(len(line))
			continue
		case errors.Is(err, io.EOF):
			return done, nil
		case err != nil:
			return done, err
		}
		done.complete += long + int64(len(line))
		ev, ok := decodeLine(line[:len(line)-1])
		if !ok || long > 0 {
			done.damaged++
			long = 0
			continue
		}
		if err := fn(ev); err != nil {
			return done, err
		}
	}
}

// chooses tells whether the filter lets an event through, Last aside.
func (f Filter) chooses(ev Event) bool {
	return (len(f.Machines) == 0 || slices.Contains(f.Machines, ev.Machine)) && !ev.Time.Before(f.Since)
}

// newest keeps the last of the events that the filter wants.
func (f Filter) newest(events []Event) []Event {
	switch {
	case f.Last < 0:
		return nil
	case f.Last > 0 && len(events) > f.Last:
		return events[len(events)-f.Last:]
	default:
		return events
	}
}
