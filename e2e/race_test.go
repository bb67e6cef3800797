//go:build race

package e2e

// raceBuild builds maqet itself with the race detector when the tests have it.
const raceBuild = true
