package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"tollgate/internal/ledger"
)

// cell is one value of a thing: the names of the fields that lead to it, joined by
// points, and the value as text.
type cell struct{ name, text string }

// showCSV prints things as CSV. The columns are the fields of their JSON in the order
// in which they first appear; a field within a field is named with a point between. null
// is an empty cell, the values of a list stand in one cell with spaces between. A text
// that a spreadsheet would take for a formula begins with an apostrophe.
func showCSV[T any](w io.Writer, things []T) error {
	named := things
	if len(things) == 0 {
		named = make([]T, 1) // for its names alone
	}
	rows := make([][]cell, len(named))
	var names []string
	for i, thing := range named {
		row, err := cells(thing)
		if err != nil {
			return fmt.Errorf("print: %w", err)
		}
		rows[i] = row
		for _, c := range row {
			if !slices.Contains(names, c.name) {
				names = append(names, c.name)
			}
		}
	}
	out := csv.NewWriter(w)
	_ = out.Write(names) // the error stays and is read below
	line := make([]string, len(names))
	for _, row := range rows[:len(things)] {
		clear(line)
		for _, c := range row {
			line[slices.Index(names, c.name)] = c.text
		}
		_ = out.Write(line)
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// cells takes a thing's JSON apart. A thing that is an object and has no fields has no
// cells.
func cells(thing any) ([]cell, error) {
	raw, err := json.Marshal(thing)
	if err != nil {
		return nil, err
	}
	return apart(nil, "", raw)
}

func apart(row []cell, name string, raw jsontext.Value) ([]cell, error) {
	if raw.Kind() != jsontext.KindBeginObject {
		text, err := plain(raw)
		return append(row, cell{name, text}), err
	}
	dec := jsontext.NewDecoder(bytes.NewReader(raw))
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	for dec.PeekKind() != jsontext.KindEndObject {
		key, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		field := strings.TrimPrefix(name+"."+key.String(), ".")
		value, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		if row, err = apart(row, field, value); err != nil {
			return nil, err
		}
	}
	return row, nil
}

// plain is a value as text. A list of objects stays JSON.
func plain(raw jsontext.Value) (string, error) {
	kind := raw.Kind()
	if kind == jsontext.KindString {
		var text string
		err := json.Unmarshal(raw, &text)
		return ledger.Inert(text), err
	}
	if kind == jsontext.KindBeginArray {
		return plainList(raw)
	}
	if kind == jsontext.KindNull {
		return "", nil
	}
	return string(raw), nil
}

func plainList(raw jsontext.Value) (string, error) {
	var values []jsontext.Value
	if err := json.Unmarshal(raw, &values); err != nil {
		return "", err
	}
	texts := make([]string, len(values))
	for i, v := range values {
		if v.Kind() == jsontext.KindBeginObject || v.Kind() == jsontext.KindBeginArray {
			return string(raw), nil
		}
		text, err := plain(v)
		if err != nil {
			return "", err
		}
		texts[i] = text
	}
	return strings.Join(texts, " "), nil
}
