package hosttest

import "encoding/binary"

// Ports of a q35 board, and the scancodes of the keys that the guest listens to.
const (
	serialPort     = 0x3f8
	keyboardData   = 0x60
	keyboardStatus = 0x64
	watchdogPort   = 0x443
	panicPort      = 0x505
	powerStatus    = 0x600
	powerEnable    = 0x602
	powerControl   = 0x604
	resetPort      = 0xcf9

	keyO, keyR, keyP, keyW, keyD = 0x18, 0x13, 0x19, 0x11, 0x20
)

// GuestImage is a disk whose boot sector is a whole guest for a q35 board: it writes
// [Greeting] to its serial port, and from then on powers off when its power button
// is pressed, and does as the key says that is pressed: the letter of a [Guest].
func GuestImage() []byte {
	c := new(code)
	c.add(0xfa) // cli: nobody else reads the keyboard
	for _, letter := range []byte(Greeting + "\r\n") {
		c.out(serialPort, letter)
	}
	c.outWord(powerEnable, 1<<8)
	c.add(0x31, 0xdb) // xor bx, bx: it hears
	loop := len(c.text)
	c.add(0xe4, keyboardStatus, 0xa8, 1) // in al, status; test al, 1
	c.unless(0x75, func() {              // jnz: a key was pressed
		c.add(0x84, 0xdb)          // test bl, bl
		c.jump(0x75, loop)         // jnz: it is deaf
		c.port(powerStatus)        // mov dx, status
		c.add(0xed, 0xf6, 0xc4, 1) // in ax, dx; test ah, 1
		c.jump(0x74, loop)         // jz: nobody pressed the button
		c.outWord(powerControl, 0x2000)
		c.jump(0xeb, loop)
	})
	c.add(0xe4, keyboardData) // in al, data
	for _, key := range []struct {
		code byte
		does func()
	}{
		{keyO, func() { c.outWord(powerControl, 0x2000) }},
		{keyR, func() { c.out(resetPort, 6) }},
		{keyP, func() { c.out(panicPort, 1) }},
		{keyW, func() { c.out(watchdogPort, 0xf) }},
		{keyD, func() { c.add(0xb3, 1) }}, // mov bl, 1
	} {
		c.add(0x3c, key.code) // cmp al, code
		c.unless(0x75, func() {
			key.does()
			c.jump(0xeb, loop)
		})
	}
	c.jump(0xeb, loop)
	// Smaller than a cylinder it is no disk to the firmware.
	image := make([]byte, 1<<20)
	copy(image, c.text)
	image[510], image[511] = 0x55, 0xaa
	return image
}

// code is 16-bit code being written.
type code struct{ text []byte }

func (c *code) add(bytes ...byte) { c.text = append(c.text, bytes...) }

// port loads the number of an I/O port.
func (c *code) port(port uint16) {
	c.add(0xba)
	c.text = binary.LittleEndian.AppendUint16(c.text, port)
}

// out writes a byte to an I/O port, outWord a word.
func (c *code) out(port uint16, value byte) {
	c.port(port)
	c.add(0xb0, value, 0xee)
}

func (c *code) outWord(port, value uint16) {
	c.port(port)
	c.add(0xb8)
	c.text = binary.LittleEndian.AppendUint16(c.text, value)
	c.add(0xef)
}

// jump is a short jump backwards to a place.
func (c *code) jump(op byte, to int) {
	c.add(op, 0)
	c.text[len(c.text)-1] = distance(to - len(c.text))
}

// unless writes what a short jump of that kind passes over.
func (c *code) unless(op byte, what func()) {
	c.add(op, 0)
	from := len(c.text)
	what()
	c.text[from-1] = distance(len(c.text) - from)
}

// distance is that of a short jump.
func distance(n int) byte {
	if n != int(int8(n)) { //nolint:gosec // whether it fits is what is asked
		panic("the guest's code has grown: a short jump does not reach that far")
	}
	return byte(n) //nolint:gosec // it fits
}
