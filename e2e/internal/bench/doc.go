// Package bench compares the built maqet with the least that any program must
// do for the same result, on real QEMU.
//
// # What it is
//
// A [Case] is one comparison: something maqet does, what it is held against, and
// what has to be arranged before each of the two. [Run] measures them in turn, A
// B A B, so that what else the computer does meets both alike; the ratio is taken
// within each pair, and the median of the ratios is what counts. [Cases] are the
// comparisons, [WriteTable] and [WriteJSON] show the results.
//
// # Basics
//
//	lab, err := bench.NewLab(binaries)
//	defer lab.Close()
//	result := bench.Run(ctx, lab, c, 20)
//
// # Caveats
//
// Everything lives in one private folder. [Lab.Close] kills every QEMU whose pid
// file lies there, however it was started. Whole processes are measured, from
// just before they are started until they have been waited for; what they print
// goes to a file, as into a pipe of nobody's.
package bench
