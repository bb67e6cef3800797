package qemu

import "strings"

// shellPlain are the characters that mean nothing to a shell, wherever they stand
// in a word.
const shellPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,+@%"

// QuoteShell writes argv so that a POSIX shell reads it back to the same words,
// whatever they hold.
func QuoteShell(argv []string) string {
	words := make([]string, len(argv))
	for i, word := range argv {
		words[i] = quoteWord(word, i == 0)
	}
	return strings.Join(words, " ")
}

// quoteWord quotes one word where it must be. A first word with an equals sign
// would be read as an assignment.
func quoteWord(word string, first bool) string {
	if word != "" && strings.Trim(word, shellPlain) == "" && (!first || !strings.Contains(word, "=")) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
