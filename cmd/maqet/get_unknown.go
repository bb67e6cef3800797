package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/maqet/maqet/driver"
)

// sayUnremembered tells of machines that run and of which nothing is remembered, as
// when the database was lost. Nobody supervises or stops them until they are applied
// again. It tells whether there are any.
func sayUnremembered(ctx context.Context, a *app) bool {
	// Whoever makes a machine writes its record first.
	names, err := a.built.driver.Known(ctx)
	var remembered []string
	if err == nil {
		remembered, err = knownMachines(ctx, a)
	}
	if err != nil {
		a.built.log.LogAttrs(ctx, slog.LevelDebug, "looking for machines that are not remembered failed", slog.Any("err", err))
		return false
	}
	found := false
	for _, name := range names {
		if slices.Contains(remembered, name) {
			continue
		}
		obs := a.built.driver.Observe(ctx, name, nil, driver.DepthBrief)
		if obs.Presence != driver.Alive && obs.Presence != driver.Unresponsive {
			continue
		}
		found = true
		fmt.Fprintf(a.env.err, "vm/%s runs (pid %d) and nothing is remembered of it; apply its manifest again, and it is adopted as it is\n", name, obs.PID)
	}
	return found
}
