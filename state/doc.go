// Package state remembers what must be known when everything stops: which
// objects were applied by whom, holds, terminations, snapshots taken.
package state
