package qmp

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// readAll returns every line of r and the error that ended it.
func readAll(r io.Reader, limit int) ([]string, error) {
	lines := newLineReader(r, limit)
	var got []string
	for {
		line, err := lines.next()
		if err != nil {
			return got, err
		}
		got = append(got, string(line))
	}
}

func TestLineReader_streams_cutIntoLines(t *testing.T) {
	big := strings.Repeat("x", 3*readBuffer)
	for _, tc := range []struct {
		name, in string
		limit    int
		want     []string
		err      error
	}{
		{"empty", "", 10, nil, io.EOF},
		{"crlf", "a\r\nb\r\n", 10, []string{"a", "b"}, io.EOF},
		{"lf", "a\nb\n", 10, []string{"a", "b"}, io.EOF},
		{"blank lines", "\r\n \t\r\na\r\n\n", 10, []string{"a"}, io.EOF},
		{"carriage return inside", "a\rb\r\n", 10, []string{"a\rb"}, io.EOF},
		{"two carriage returns", "a\r\r\n", 10, []string{"a\r"}, io.EOF},
		{"cut in a line", "a\r\nb", 10, []string{"a"}, io.ErrUnexpectedEOF},
		{"cut in a line end", "a\r", 10, nil, io.ErrUnexpectedEOF},
		{"longer than a read", big + "\r\nb\r\n", len(big), []string{big, "b"}, io.EOF},
		{"exactly one read", big[:readBuffer-2] + "\r\n", readBuffer, []string{big[:readBuffer-2]}, io.EOF},
		{"line end in the next read", big[:readBuffer-1] + "\r\n", readBuffer, []string{big[:readBuffer-1]}, io.EOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for name, wrap := range map[string]func(io.Reader) io.Reader{
				"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "data with error": iotest.DataErrReader,
			} {
				got, err := readAll(wrap(strings.NewReader(tc.in)), tc.limit)
				if !cmp.Equal(got, tc.want) {
					t.Errorf("%s: %d lines differ from the %d wanted", name, len(got), len(tc.want))
				}
				if !errors.Is(err, tc.err) {
					t.Errorf("%s: error %v, want %v", name, err, tc.err)
				}
			}
		})
	}
}

func TestLineReader_lineAtTheBound_acceptedWhateverItsEnd(t *testing.T) {
	for _, limit := range []int{1, 5, readBuffer - 1, readBuffer, readBuffer + 1, 2 * readBuffer} {
		for _, end := range []string{"\n", "\r\n"} {
			fits, over := strings.Repeat("x", limit)+end, strings.Repeat("x", limit+1)+end
			if got, err := readAll(strings.NewReader(fits), limit); !errors.Is(err, io.EOF) || len(got) != 1 {
				t.Errorf("bound %d, end %q: %d lines, %v", limit, end, len(got), err)
			}
			var perr *ProtocolError
			if _, err := readAll(strings.NewReader(over), limit); !errors.As(err, &perr) {
				t.Errorf("bound %d, end %q, one over: %v, want a *ProtocolError", limit, end, err)
			} else if len(perr.Excerpt) > excerptLen {
				t.Errorf("the error carries %d bytes of the line", len(perr.Excerpt))
			}
		}
	}
}

func TestLineReader_afterABigLine_bufferIsReleased(t *testing.T) {
	lines := newLineReader(strings.NewReader(strings.Repeat("x", 1<<20)+"\r\nsmall\r\n"), 2<<20)
	for range 2 {
		if _, err := lines.next(); err != nil {
			t.Fatal(err)
		}
	}
	if cap(lines.buf) > keepLine {
		t.Errorf("a buffer of %d bytes is kept after a small line", cap(lines.buf))
	}
}

func TestDecodeMessage_lineOverwritten_messageKeepsItsBytes(t *testing.T) {
	line := []byte(`{"return": {"a": "value"}, "id": "7"}`)
	m, err := decodeMessage(line)
	if err != nil {
		t.Fatal(err)
	}
	for i := range line {
		line[i] = '#'
	}
	if got := string(m.reply.value); got != `{"a": "value"}` || m.reply.id != "7" {
		t.Errorf("reply %s, id %s", got, m.reply.id)
	}
}

// FuzzFrame checks that the way a stream is cut into reads changes nothing, and
// that no stream, whatever it holds, is worse than an error.
func FuzzFrame(f *testing.F) {
	for _, s := range []string{
		"", "\r\n", "{}\r\n", "{\"return\": {}, \"id\": \"1\"}\r\n",
		"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n{\"event\": \"STOP\"}\n",
		"{\"timestamp\": {\"seconds\": -1, \"microseconds\": 9}, \"event\": \"RESET\", \"data\": {\"guest\": true}}\r\n{\"error\":{}",
		"{\"error\": null, \"id\": \"\\u0000\"}\r\n\x00\r\r\n[1,2]\n\"text\"\n{\"id\": 1e99, \"return\": null}\r\n",
	} {
		f.Add([]byte(s), uint16(3))
		f.Add([]byte(s), uint16(4000))
	}
	f.Fuzz(func(t *testing.T, stream []byte, bound uint16) {
		limit := int(bound) + 1
		want, wantErr := readAll(bytes.NewReader(stream), limit)
		check := func(how string, r io.Reader) {
			got, err := readAll(r, limit)
			if !cmp.Equal(want, got) {
				t.Errorf("%s: other lines: %q, want %q", how, got, want)
			}
			if !sameKind(err, wantErr) {
				t.Errorf("%s: error %v, want %v", how, err, wantErr)
			}
		}
		check("byte by byte", iotest.OneByteReader(bytes.NewReader(stream)))
		for i := range min(len(stream), 300) {
			check("split", io.MultiReader(bytes.NewReader(stream[:i]), bytes.NewReader(stream[i:])))
		}
		for _, line := range want {
			if len(line) > limit {
				t.Errorf("a line of %d bytes passed the bound %d", len(line), limit)
			}
			checkMessage(t, line)
		}
	})
}

// checkMessage decodes one line: it is exactly one thing, or a *ProtocolError.
func checkMessage(t *testing.T, line string) {
	t.Helper()
	m, err := decodeMessage([]byte(line))
	var perr *ProtocolError
	if err != nil {
		if !errors.As(err, &perr) || perr.Error() == "" {
			t.Errorf("line %q: error %v, want a *ProtocolError", line, err)
		}
		return
	}
	kinds := 0
	for _, is := range []bool{m.greeting != nil, m.event != nil, m.reply != nil} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		t.Errorf("line %q is %d kinds of message", line, kinds)
	}
}

// sameKind reports whether two errors are the same end of a stream.
func sameKind(a, b error) bool {
	var pa, pb *ProtocolError
	if errors.As(a, &pa) || errors.As(b, &pb) {
		return errors.As(a, &pa) && errors.As(b, &pb) && pa.Reason == pb.Reason
	}
	return errors.Is(a, b)
}
