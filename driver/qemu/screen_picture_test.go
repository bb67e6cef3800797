package qemu

import (
	"bytes"
	"fmt"
	"image/png"
	"strings"
	"testing"
)

// drawn is a black picture with a white rectangle.
func drawn(t *testing.T, wide, high, left, top, w, h int) *Picture {
	t.Helper()
	rgb := make([]byte, 3*wide*high)
	for y := top; y < top+h; y++ {
		for x := left; x < left+w; x++ {
			copy(rgb[3*(y*wide+x):], "\xff\xff\xff")
		}
	}
	p, err := readPPM(append(fmt.Appendf(nil, "P6\n%d %d\n255\n", wide, high), rgb...))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPicture_aCursor_isNoChange(t *testing.T) {
	blank := drawn(t, 80, 40, 0, 0, 0, 0)
	for _, tc := range []struct {
		what string
		to   *Picture
		same bool
	}{
		{"nothing", drawn(t, 80, 40, 0, 0, 0, 0), true},
		{"a line of a cell", drawn(t, 80, 40, 9, 30, 9, 2), true},
		{"a cell", drawn(t, 80, 40, 70, 20, 10, 20), true},
		{"two cells", drawn(t, 80, 40, 9, 0, 18, 16), false},
		{"a high bar", drawn(t, 80, 40, 9, 0, 1, 21), false},
		{"another size", drawn(t, 40, 80, 0, 0, 0, 0), false},
	} {
		if got := blank.Same(tc.to); got != tc.same {
			t.Errorf("%s: the same is %v, want %v", tc.what, got, tc.same)
		}
	}
}

func TestPicture_asPNG_hasTheSamePixels(t *testing.T) {
	text, err := drawn(t, 7, 5, 2, 1, 3, 2).PNG()
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var seen strings.Builder
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			r, _, _, _ := img.At(x, y).RGBA()
			fmt.Fprint(&seen, r>>15)
		}
		seen.WriteByte(' ')
	}
	if got, want := seen.String(), "0000000 0011100 0011100 0000000 0000000 "; got != want {
		t.Errorf("the picture is %s, want %s", got, want)
	}
}

func TestReadPPM_whatIsNone_isRefused(t *testing.T) {
	for _, text := range []string{"", "P5\n1 1\n255\nabc", "P6\n1 1\n255\nab", "P6\n1 1\n255\nabcd", "P6\n-1 -1\n255\nabc", "P6\n1 1\n65535\nabcdef", "P6\n0 0\n255\n"} {
		if _, err := readPPM([]byte(text)); err == nil {
			t.Errorf("%q is a picture", text)
		}
	}
}
