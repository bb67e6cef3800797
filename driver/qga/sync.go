package qga

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
)

const (
	// sentinel flushes the agent's parser on the way in, and begins the answer to
	// guest-sync-delimited on the way out. It is in no JSON text, which is UTF-8.
	sentinel = 0xff
	// maxSyncReply is more than the answer to guest-sync-delimited has.
	maxSyncReply = 256
	// idBits are what every JSON reader takes for a whole number.
	idBits = 52
)

// sync comes into step: it writes the sentinel and a number, and reads until just
// this number comes back behind a sentinel. What comes before is of earlier clients,
// or the agent's complaint about the sentinel itself.
func (c *Conn) sync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.opt.Answer)
	defer cancel()
	id, err := newID()
	if err != nil {
		return err
	}
	const command = "guest-sync-delimited"
	request, err := encode(command, map[string]int64{"id": id})
	if err != nil {
		return err
	}
	err = c.during(ctx, func() error {
		if err := c.write(ctx, append([]byte{sentinel}, request...)); err != nil {
			return err
		}
		for {
			line, err := c.in.behindSentinel(ctx, maxSyncReply)
			if err != nil {
				return err
			}
			var r struct {
				Return *int64 `json:"return"`
			}
			if json.Unmarshal(line, &r) == nil && r.Return != nil && *r.Return == id {
				return nil
			}
		}
	})
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

// newID is a number that no earlier client has used, as far as chance goes.
func newID() (int64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("a random number to come into step with: %w", err)
	}
	return int64(binary.LittleEndian.Uint64(b[:]) >> (64 - idBits)), nil
}
