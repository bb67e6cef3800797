// Package reconcile decides what has to happen, in which order and when.
package reconcile
