package guest

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
)

// echoCode is the echo guest: a boot sector for BIOS that prints its banner and then, for
// ever, whatever comes from the keyboard (int 16h) or the first serial line, to that line
// and to the screen (int 10h). A carriage return is followed by a line feed. In between it
// halts until the next interrupt.
const echoCode = `
ea057c000031c08ed88ed0bc007cfbfcbe677cac84c07405e82700ebf6b401cd
16740bb400cd1684c07403e81400bafd03eca8017503f4ebe4baf803ece80200
ebdbe80a003c0d7505b00ae80100c350bafd03eca82074fb5850baf803eeb40e
bb0700cd1058c36563686f2067756573742072656164790d0000
`

// echoSize is the size of its disk: more than a sector, as some drives want.
const echoSize = 1 << 20

// WriteEcho writes the disk of the echo guest into a file. It boots within a second, needs
// 16 MiB and no kernel, and shows what a keyboard and a serial line say to a guest.
func WriteEcho(path string) error {
	code, err := hex.DecodeString(strings.Join(strings.Fields(echoCode), ""))
	if err != nil {
		return fmt.Errorf("the echo guest: %w", err)
	}
	disk := make([]byte, echoSize)
	copy(disk, code)
	disk[510], disk[511] = 0x55, 0xaa // makes it a boot sector
	return os.WriteFile(path, disk, 0o600)
}
