package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// outputFlag is the flag of every command that lists things.
type outputFlag struct {
	Output string `short:"o" enum:"table,json,jsonl,csv" default:"table" help:"How to print: ${enum}."`
}

// forPeople tells whether a table was asked for, which is the default.
func forPeople(output string) bool { return output == "table" || output == "" }

// verdict is where a sentence about the whole goes: beside a table, and to standard
// error where standard output is read by a program.
func (e *Env) verdict(output string) io.Writer {
	if forPeople(output) {
		return e.Stdout
	}
	return e.Stderr
}

// column is one column of a table: its heading and its cell for one thing.
type column[T any] struct {
	name string
	cell func(T) string
	// right: a number, set to the right.
	right bool
}

// show prints things the way that was asked for: as a table for people, or as JSON,
// JSON lines or CSV with all that is known of them.
func show[T any](env *Env, output string, things []T, columns ...column[T]) error {
	switch output {
	case "json":
		return showJSON(env.Stdout, things)
	case "jsonl":
		return showLines(env.Stdout, things)
	case "csv":
		return showCSV(env.Stdout, things)
	}
	return showTable(env.Stdout, things, columns)
}

// showOne prints one thing the way that was asked for; table prints it for people.
func showOne[T any](env *Env, output string, one T, table func(io.Writer) error) error {
	switch output {
	case "json":
		enc := json.NewEncoder(env.Stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(one); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		return nil
	case "jsonl":
		return showLines(env.Stdout, []T{one})
	case "csv":
		return showCSV(env.Stdout, []T{one})
	}
	return table(env.Stdout)
}

func showJSON[T any](w io.Writer, things []T) error {
	if things == nil {
		things = []T{} // [] and not null
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(things); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func showLines[T any](w io.Writer, things []T) error {
	enc := json.NewEncoder(w)
	for _, thing := range things {
		if err := enc.Encode(thing); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}

// narrow is the least width that a column is cut to.
const narrow = 8

// showTable prints a table that fits the terminal: where it is too wide the longest
// cells are cut. Into a file or a pipe nothing is cut.
func showTable[T any](w io.Writer, things []T, columns []column[T]) error {
	t := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	t.SetStyle(style)
	head := make(table.Row, len(columns))
	widths := make([]int, len(columns))
	for i, c := range columns {
		head[i], widths[i] = strings.ToUpper(c.name), len(c.name)
	}
	t.AppendHeader(head)
	for _, thing := range things {
		row := make(table.Row, len(columns))
		for i, c := range columns {
			cell := printable(c.cell(thing))
			row[i], widths[i] = cell, max(widths[i], text.StringWidthWithoutEscSequences(cell))
		}
		t.AppendRow(row)
	}
	fit(widths, terminalWidth(w))
	configs := make([]table.ColumnConfig, len(columns))
	for i, c := range columns {
		configs[i] = table.ColumnConfig{Number: i + 1, WidthMax: widths[i], WidthMaxEnforcer: cut}
		if c.right {
			configs[i].Align, configs[i].AlignHeader = text.AlignRight, text.AlignRight
		}
	}
	t.SetColumnConfigs(configs)
	for line := range strings.Lines(t.Render() + "\n") {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}

func cut(s string, width int) string {
	if text.StringWidthWithoutEscSequences(s) <= width {
		return s
	}
	return text.Snip(s, width, "…")
}

// fit makes the widest columns narrower until all are within the terminal, or none
// can give more. 0 is no terminal.
func fit(widths []int, terminal int) {
	const gap = 2
	for terminal > 0 {
		total, widest := 0, 0
		for i, w := range widths {
			total += w + gap
			if w > widths[widest] {
				widest = i
			}
		}
		if total-gap <= terminal || widths[widest] <= narrow {
			return
		}
		widths[widest]--
	}
}

// terminalWidth is how many columns the terminal behind w has; 0 where w is none.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// printable quotes a text that would disturb a terminal.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}
