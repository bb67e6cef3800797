// Package layout names every file and folder that maqet keeps on a host, in
// one place. It only computes paths; making what lies in them is for the
// packages that own it. EnsureDirs makes the two folders that all else is in.
//
// The run dir dies with the boot, the state dir does not. The name "locks" is
// taken in the run dir, so no machine can have it.
package layout
