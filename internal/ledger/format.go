package ledger

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Format names how a usage report is written.
type Format string

// The formats.
const (
	Table Format = "table" // for people: aligned, with a total
	CSV   Format = "csv"   // a line of names, a line a group, no total
	JSON  Format = "json"  // an array of groups
)

// WriteUsage writes a usage report. An empty one is a table without groups, a
// line of names, or []. In CSV a name that a spreadsheet would take for a formula
// begins with an apostrophe. An unknown format is an [ErrQuery].
func WriteUsage(w io.Writer, f Format, by By, groups []Group) error {
	switch f {
	case Table:
		return writeTable(w, by, groups)
	case CSV:
		return writeCSV(w, by, groups)
	case JSON:
		return writeJSON(w, groups)
	}
	return fmt.Errorf("%w: format %q, want table, csv or json", ErrQuery, f)
}

func writeJSON(w io.Writer, groups []Group) error {
	if groups == nil {
		groups = []Group{} // [] and not null
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(groups); err != nil {
		return fmt.Errorf("write usage: %w", err)
	}
	return nil
}

func writeCSV(w io.Writer, by By, groups []Group) error {
	lines := [][]string{{string(by), "requests", "prompt_tokens", "completion_tokens", "total_tokens"}}
	for _, g := range groups {
		lines = append(lines, append([]string{inert(g.Group)}, numbers(g)...))
	}
	if err := csv.NewWriter(w).WriteAll(lines); err != nil {
		return fmt.Errorf("write usage: %w", err)
	}
	return nil
}

func writeTable(w io.Writer, by By, groups []Group) error {
	lines := [][]string{{strings.ToUpper(string(by)), "REQUESTS", "PROMPT", "COMPLETION", "TOTAL"}}
	for _, g := range groups {
		lines = append(lines, append([]string{printable(g.Group)}, numbers(g)...))
	}
	lines = append(lines, append([]string{"total"}, numbers(Total(groups))...))
	var widths [5]int
	for _, l := range lines {
		for i, cell := range l {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, l := range lines { // the name to the left, numbers to the right
		if _, err := fmt.Fprintf(w, "%-*s  %*s  %*s  %*s  %*s\n",
			widths[0], l[0], widths[1], l[1], widths[2], l[2], widths[3], l[3], widths[4], l[4]); err != nil {
			return fmt.Errorf("write usage: %w", err)
		}
	}
	return nil
}

func numbers(g Group) []string {
	n := make([]string, 0, 4)
	for _, v := range []int64{g.Requests, g.PromptTokens, g.CompletionTokens, g.TotalTokens} {
		n = append(n, strconv.FormatInt(v, 10))
	}
	return n
}

// printable quotes a name that would disturb a terminal, or that is empty.
func printable(name string) string {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(name)
	}
	return name
}
