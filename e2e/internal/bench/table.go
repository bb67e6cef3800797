package bench

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteTable shows the results to people: one line for each case, and below them
// what each was held against and why a case is missing.
func WriteTable(w io.Writer, c Computer, results []Result) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%d cores (%s), %s memory, Linux %s\n", c.Cores, c.CPU, c.Memory, c.Kernel)
	fmt.Fprintf(&text, "%s, accelerator %s; %s; %s\n\n", c.QEMU, c.Accelerator, c.Maqet, c.Go)
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CASE\tMAQET\tRAW\tRATIO\tMIN–MAX\tAIM\tRUNS")
	for _, r := range results {
		if len(r.Pairs) > 0 {
			fmt.Fprintln(table, strings.Join(cells(r), "\t"))
		}
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("lay out the table: %w", err)
	}
	fmt.Fprint(&text, "\nMedians of pairs run in turn; the ratio is the median of the pairs' ratios.\n\n")
	for _, r := range results {
		fmt.Fprintf(&text, "%s: %s\n", r.Case.Name, sentence(r))
	}
	if _, err := io.WriteString(w, text.String()); err != nil {
		return fmt.Errorf("print the results: %w", err)
	}
	return nil
}

// cells are the columns of a measured case.
func cells(r Result) []string {
	ours, raw, ratio := Ours(r.Pairs), Raw(r.Pairs), Ratio(r.Pairs)
	show := r.Case.Unit.show
	against, quotient, extremes := "-", "-", show(ours.Min)+"–"+show(ours.Max)
	if r.Case.Against != "" {
		against, quotient = show(raw.Median), fmt.Sprintf("%.2f", ratio.Median)
		extremes = fmt.Sprintf("%.2f–%.2f", ratio.Min, ratio.Max)
	}
	return []string{r.Case.Name, show(ours.Median), against, quotient, extremes, cmp.Or(r.Case.Aim, "-"), fmt.Sprint(len(r.Pairs))}
}

// sentence says what a case compares, or why it does not.
func sentence(r Result) string {
	text := r.Case.Does
	if r.Case.Against != "" {
		text += ", against " + r.Case.Against
	}
	switch {
	case r.Skipped():
		text += "; not run: " + r.Err.Error()
	case r.Err != nil:
		text += "; FAILED: " + r.Err.Error()
	}
	return text
}

// Skipped tells whether a case could not be run here, which is no failure.
func (r Result) Skipped() bool { return errors.Is(r.Err, ErrSkip) }

// measured is a result as programs read it.
type measured struct {
	Case    string  `json:"case"`
	Unit    Unit    `json:"unit"`
	Does    string  `json:"does"`
	Against string  `json:"against,omitempty"`
	Aim     string  `json:"aim,omitempty"`
	Ours    Spread  `json:"maqet"`
	Raw     *Spread `json:"raw,omitempty"`
	Ratio   *Spread `json:"ratio,omitempty"`
	Pairs   []Pair  `json:"pairs"`
	Skipped bool    `json:"skipped,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// WriteJSON shows the results to programs, each pair included.
func WriteJSON(w io.Writer, c Computer, results []Result) error {
	list := make([]measured, 0, len(results))
	for _, r := range results {
		m := measured{
			Case: r.Case.Name, Unit: r.Case.Unit, Does: r.Case.Does, Against: r.Case.Against, Aim: r.Case.Aim,
			Ours: Ours(r.Pairs), Pairs: append([]Pair{}, r.Pairs...), Skipped: r.Skipped(),
		}
		if r.Case.Against != "" {
			raw, ratio := Raw(r.Pairs), Ratio(r.Pairs)
			m.Raw, m.Ratio = &raw, &ratio
		}
		if r.Err != nil {
			m.Error = r.Err.Error()
		}
		list = append(list, m)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(struct {
		Computer Computer   `json:"computer"`
		Cases    []measured `json:"cases"`
	}{c, list})
	if err != nil {
		return fmt.Errorf("print the results: %w", err)
	}
	return nil
}
