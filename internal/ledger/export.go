package ledger

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Line is a row as JSON: every column under its name, times as RFC 3339, null
// for what is not known.
type Line struct{ r *Record }

// LineOf is the exported form of a row, which must not change meanwhile.
func LineOf(r *Record) Line { return Line{r} }

// MarshalJSON implements [json.Marshaler].
func (l Line) MarshalJSON() ([]byte, error) { return l.append(nil) }

func (l Line) append(b []byte) ([]byte, error) {
	for i, c := range columns {
		value, err := json.Marshal(c.Value(l.r))
		if err != nil {
			return nil, fmt.Errorf("encode column %s: %w", c.Name, err)
		}
		open := byte(',')
		if i == 0 {
			open = '{'
		}
		b = append(append(b, open, '"'), c.Name...)
		b = append(append(b, `":`...), value...)
	}
	return append(b, '}'), nil
}

// Exporter writes rows one after the other. Close it to see what is buffered
// written.
type Exporter interface {
	Row(r *Record) error
	Close() error
}

// NewJSONLines exports rows as one JSON object a line, as [Line] has it.
func NewJSONLines(w io.Writer) Exporter { return &jsonLines{w: w} }

type jsonLines struct {
	w    io.Writer
	line []byte
}

func (e *jsonLines) Row(r *Record) (err error) {
	if e.line, err = LineOf(r).append(e.line[:0]); err == nil {
		_, err = e.w.Write(append(e.line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write row: %w", err)
	}
	return nil
}

func (*jsonLines) Close() error { return nil }

// NewCSV exports rows as CSV under a line of column names, which is there even
// without rows. What is null in JSON is an empty field. Text that a spreadsheet
// would compute begins with an apostrophe, see [WriteUsage].
func NewCSV(w io.Writer) Exporter { return &csvRows{w: csv.NewWriter(w)} }

type csvRows struct {
	w      *csv.Writer
	headed bool
}

func (e *csvRows) head() error {
	if e.headed {
		return nil
	}
	e.headed = true
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name
	}
	return e.w.Write(names)
}

func (e *csvRows) Row(r *Record) error {
	if err := e.head(); err != nil {
		return fmt.Errorf("write row: %w", err)
	}
	cells := make([]string, len(columns))
	for i, c := range columns {
		cells[i] = cell(c.Value(r))
	}
	if err := e.w.Write(cells); err != nil {
		return fmt.Errorf("write row: %w", err)
	}
	return nil
}

func (e *csvRows) Close() error {
	err := e.head()
	e.w.Flush()
	if err == nil {
		err = e.w.Error()
	}
	if err != nil {
		return fmt.Errorf("write rows: %w", err)
	}
	return nil
}

// Inert is text as a cell of CSV that no spreadsheet computes: one that begins
// with =, +, -, @, a tab or a line end (their full-width forms too) gets an
// apostrophe in front, which spreadsheets hide. Users and models are named by
// people, and a report is opened by somebody else.
func Inert(s string) string {
	if r, _ := utf8.DecodeRuneInString(s); strings.ContainsRune("=+-@\t\r\n＝＋－＠", r) {
		return "'" + s
	}
	return s
}

// cell is a value of a column as a cell of CSV.
func cell(value any) string {
	switch v := value.(type) {
	case string:
		return Inert(v)
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case time.Time:
		return v.Format(time.RFC3339Nano)
	}
	return "" // not known
}
