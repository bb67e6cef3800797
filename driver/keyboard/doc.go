// Package keyboard says which keys are pressed for what: for a combination that a person
// names, and for a text on a layout.
//
// # Basics
//
// [ParseChord] reads "ctrl-alt-delete". [ReadLayout] reads one of QEMU's own keymap files,
// and [Layout.Strokes] says what is pressed for a text, or which of its characters the
// layout does not have. A [Key] is what QEMU's commands send-key and input-send-event
// take as a KeyValue.
//
// # Caveats
//
// A keyboard sends keys, not characters: the guest reads them by a layout of its own,
// which nobody outside can see. A text arrives as it was given only where both are the
// same.
//
// Characters that a layout has by a dead key are those where the dead key is followed by
// a space or by a letter that Unicode composes with it; not all guests do so everywhere.
package keyboard
