package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/maqet/maqet/reconcile"
)

// mostPlan bounds what is read as a plan. That of 2000 machines has some 3 MB.
const mostPlan = 64 << 20

// readPlan reads what maqet plan -o json has written.
func readPlan(path string) (*reconcile.PlanReport, error) {
	f, err := os.Open(path) //nolint:gosec // whoever runs this names the file
	if err != nil {
		return nil, usagef("--plan: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, mostPlan+1))
	if err != nil {
		return nil, fmt.Errorf("read the plan: %w", err)
	}
	if len(text) > mostPlan {
		return nil, usagef("--plan %s: it has more than %d bytes", path, mostPlan)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	plan := new(reconcile.PlanReport)
	if err = decoder.Decode(plan); err == nil && decoder.More() {
		err = errors.New("something follows it")
	}
	if err != nil {
		return nil, usagef("--plan %s: it is no plan of this maqet (%w); make one with: maqet plan -f ... -o json", path, err)
	}
	return plan, nil
}
