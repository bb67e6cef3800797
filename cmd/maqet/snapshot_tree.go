package main

import (
	"fmt"
	"strings"
	"time"

	tree "github.com/jedib0t/go-pretty/v6/list"

	"github.com/maqet/maqet/reconcile"
)

// printSnapshots prints a machine's snapshots. A person sees them as a tree, each below
// the one that the machine was at when it was taken; a pipe gets plain names.
func printSnapshots(env environment, snapshots []reconcile.SnapshotStatus) {
	var rows [][]string
	if env.outTTY {
		rows = snapshotTree(snapshots)
	} else {
		for _, s := range snapshots {
			rows = append(rows, snapshotRow(s))
		}
	}
	printTable(env.out, []string{"NAME", "PHASE", "METHOD", "TAKEN", "CONSISTENCY", "MEMORY", "PAUSED", "DISKS", "NOTE"}, rows)
}

// snapshotTree are the rows in the order of the tree. A snapshot whose parent is gone
// stands at the top.
func snapshotTree(snapshots []reconcile.SnapshotStatus) [][]string {
	known := map[string]bool{}
	for _, s := range snapshots {
		known[s.Name] = true
	}
	children := map[string][]reconcile.SnapshotStatus{}
	for _, s := range snapshots {
		parent := s.Parent
		if !known[parent] || parent == s.Name {
			parent = ""
		}
		children[parent] = append(children[parent], s)
	}
	names := tree.NewWriter()
	names.SetStyle(tree.StyleConnectedLight)
	var rows [][]string
	placed := map[string]bool{}
	var add func(parent string)
	add = func(parent string) {
		for _, s := range children[parent] {
			if placed[s.Name] {
				continue
			}
			placed[s.Name] = true
			names.AppendItem(s.Name)
			rows = append(rows, snapshotRow(s))
			names.Indent()
			add(s.Name)
			names.UnIndent()
		}
	}
	add("")
	for _, s := range snapshots {
		// Records that name each other as parents are somebody's hand.
		if !placed[s.Name] {
			names.AppendItem(s.Name)
			rows, placed[s.Name] = append(rows, snapshotRow(s)), true
		}
	}
	for i, name := range strings.Split(names.Render(), "\n") {
		rows[i][0] = name
	}
	return rows
}

func snapshotRow(s reconcile.SnapshotStatus) []string {
	memory := "-"
	if s.MemorySize > 0 {
		memory = sizeCell(s.MemorySize.Bytes())
	}
	return []string{
		s.Name, string(s.Phase), orDash(string(s.Method)), timeCell(s.TakenAt), orDash(s.Consistency),
		memory, pausedCell(s), orDash(strings.Join(s.Disks, ",")), snapshotNote(s),
	}
}

// snapshotNote is what there is to say of a snapshot, such as why it is not quiesced.
func snapshotNote(s reconcile.SnapshotStatus) string {
	if s.Message == "" && s.NotQuiesced != "" {
		return "not quiesced: " + s.NotQuiesced
	}
	return s.Message
}

// pausedCell is how long the guest stood still; "-" when it did not.
func pausedCell(s reconcile.SnapshotStatus) string {
	if s.Paused == 0 {
		return "-"
	}
	text := time.Duration(s.Paused).Round(time.Millisecond).String()
	if s.PausedAtMost {
		text = "<=" + text
	}
	return text
}

// sizeCell is a number of bytes for people.
func sizeCell(n int64) string {
	const unit = 1 << 20
	return fmt.Sprintf("%.1fMi", float64(n)/unit)
}
