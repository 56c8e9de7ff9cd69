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
	Lines Format = "jsonl" // a group a line, as JSON
)

// WriteUsage writes a usage report. An empty one is a table without groups, a
// line of names, [], or no line. In CSV a name that a spreadsheet would take for a formula
// begins with an apostrophe. An unknown format is an [ErrQuery].
func WriteUsage(w io.Writer, f Format, q Query, groups []Group) error {
	switch f {
	case Table:
		return writeTable(w, q, groups)
	case CSV:
		return writeCSV(w, q, groups)
	case JSON:
		return writeJSON(w, groups)
	case Lines:
		enc := json.NewEncoder(w)
		for _, g := range groups {
			if err := enc.Encode(g); err != nil {
				return fmt.Errorf("write usage: %w", err)
			}
		}
		return nil
	}
	return fmt.Errorf("%w: format %q, want table, csv, json or jsonl", ErrQuery, f)
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

func writeCSV(w io.Writer, q Query, groups []Group) error {
	lines := [][]string{append(q.head(), "requests", "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "errors")}
	for _, g := range groups {
		lines = append(lines, append(g.names(Inert), numbers(g)...))
	}
	if err := csv.NewWriter(w).WriteAll(lines); err != nil {
		return fmt.Errorf("write usage: %w", err)
	}
	return nil
}

// head names the columns of the groupings.
func (q Query) head() []string {
	if q.Then == "" {
		return []string{string(q.By)}
	}
	return []string{string(q.By), string(q.Then)}
}

// names are the group's names, each made fit for where it goes.
func (g Group) names(fit func(string) string) []string {
	if g.Then == "" {
		return []string{fit(g.Group)}
	}
	return []string{fit(g.Group), fit(g.Part)}
}

func writeTable(w io.Writer, q Query, groups []Group) error {
	head := q.head()
	names := len(head)
	total := make([]string, names)
	total[0] = "total"
	lines := [][]string{append(strings.Split(strings.ToUpper(strings.Join(head, ",")), ","), "REQUESTS", "PROMPT", "COMPLETION", "TOTAL", "CACHED", "ERRORS")}
	for _, g := range groups {
		lines = append(lines, append(g.names(printable), numbers(g)...))
	}
	lines = append(lines, append(total, numbers(Total(groups))...))
	widths := make([]int, len(lines[0]))
	for _, l := range lines {
		for i, cell := range l {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, l := range lines { // names to the left, numbers to the right
		var row strings.Builder
		for i, cell := range l {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				row.WriteString("  ")
			}
			if i < names {
				row.WriteString(cell + pad)
			} else {
				row.WriteString(pad + cell)
			}
		}
		if _, err := fmt.Fprintln(w, row.String()); err != nil {
			return fmt.Errorf("write usage: %w", err)
		}
	}
	return nil
}

func numbers(g Group) []string {
	n := make([]string, 0, 6)
	for _, v := range []int64{g.Requests, g.PromptTokens, g.CompletionTokens, g.TotalTokens, g.CachedTokens, g.Errors} {
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
