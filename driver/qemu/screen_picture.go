package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
)

// Picture is what a screen showed.
type Picture struct {
	wide, high int
	ppm        []byte
	// rgb is the part of ppm behind its head: three bytes a pixel.
	rgb []byte
}

// readPPM reads a picture of the format that QEMU writes: P6, with 255 as the maximum.
func readPPM(text []byte) (*Picture, error) {
	p := &Picture{ppm: text}
	var most int
	head := bytes.NewReader(text)
	if _, err := fmt.Fscanf(head, "P6\n%d %d\n%d\n", &p.wide, &p.high, &most); err != nil || most != 255 {
		return nil, errors.New("QEMU has written no picture of the format PPM")
	}
	p.rgb = text[len(text)-head.Len():]
	if p.wide <= 0 || p.high <= 0 || p.wide > maxPicture/p.high || len(p.rgb) != 3*p.wide*p.high {
		return nil, fmt.Errorf("QEMU has written a picture of %d by %d pixels in %d bytes", p.wide, p.high, len(p.rgb))
	}
	return p, nil
}

// PPM is the picture as QEMU has written it: three bytes a pixel behind a short head.
func (p *Picture) PPM() []byte { return p.ppm }

// PNG is the picture compressed without loss.
func (p *Picture) PNG() ([]byte, error) {
	img := image.NewNRGBA(image.Rect(0, 0, p.wide, p.high))
	for from, to := 0, 0; from < len(p.rgb); from, to = from+3, to+4 {
		copy(img.Pix[to:], p.rgb[from:from+3])
		img.Pix[to+3] = 0xff
	}
	var out bytes.Buffer
	if err := png.Encode(&out, img); err != nil {
		return nil, fmt.Errorf("write the picture as PNG: %w", err)
	}
	return out.Bytes(), nil
}

// A change within so many pixels is a cursor that blinks.
const (
	cursorWide = 10
	cursorHigh = 20
)

// Same tells whether another picture shows the same. A place no larger than a character
// may differ: text screens have a cursor that blinks.
func (p *Picture) Same(q *Picture) bool {
	if p.wide != q.wide || p.high != q.high {
		return false
	}
	left, right, top, bottom := p.wide, -1, p.high, -1
	for y := range p.high {
		row := 3 * p.wide * y
		if bytes.Equal(p.rgb[row:row+3*p.wide], q.rgb[row:row+3*p.wide]) {
			continue
		}
		top, bottom = min(top, y), y
		for x := range p.wide {
			if at := row + 3*x; !bytes.Equal(p.rgb[at:at+3], q.rgb[at:at+3]) {
				left, right = min(left, x), max(right, x)
			}
		}
	}
	return right-left < cursorWide && bottom-top < cursorHigh
}
