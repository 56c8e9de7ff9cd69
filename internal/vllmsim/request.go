package vllmsim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// fields is a request body as Python reads it: names are case-sensitive, the
// last of two equal names wins, unknown ones are ignored.
type fields map[string]json.RawMessage

// parseFields reads a body, or says what vLLM says of it.
func parseFields(body []byte) (fields, *problem) {
	if len(body) == 0 {
		return nil, invalid("body", "missing", "Field required", "None")
	}
	var f fields
	err := json.Unmarshal(body, &f)
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil && f != nil:
		return f, nil
	case errors.As(err, &syntax):
		return nil, badJSON(body, syntax)
	case err == nil || errors.As(err, &wrong):
		return nil, invalid("body", "model_attributes_type",
			"Input should be a valid dictionary or object to extract fields from", repr(body))
	}
	return nil, invalid("body", "json_invalid", "JSON decode error", "")
}

func badJSON(body []byte, syntax *json.SyntaxError) *problem {
	at, what := max(0, syntax.Offset-1), "Expecting value"
	if strings.Contains(syntax.Error(), "unexpected end") {
		at = int64(len(body))
	}
	loc := "body." + strconv.FormatInt(at, 10)
	return &problem{
		status: http.StatusBadRequest, kind: kindValidation, param: loc,
		message: fmt.Sprintf("1 validation error:\n  {'type': 'json_invalid', 'loc': '%s', 'msg': 'JSON decode error', 'input': '<dict of 0 items>', 'ctx': {'error': '%s'}}", loc, what),
	}
}

// repr is how vLLM's validation errors show an input.
func repr(raw json.RawMessage) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return "None"
	}
	switch raw[0] {
	case '{':
		var m map[string]json.RawMessage
		if json.Unmarshal(raw, &m) == nil {
			return fmt.Sprintf("<dict of %d items>", len(m))
		}
	case '[':
		var l []json.RawMessage
		if json.Unmarshal(raw, &l) == nil {
			return fmt.Sprintf("<list of %d items>", len(l))
		}
	case '"':
		var s string
		if json.Unmarshal(raw, &s) == nil {
			return s
		}
	}
	switch string(raw) {
	case "null":
		return "None"
	case "true":
		return "True"
	case "false":
		return "False"
	}
	return string(raw)
}

// get returns the raw value; null counts as absent.
func (f fields) get(name string) (json.RawMessage, bool) {
	raw, ok := f[name]
	if !ok || string(raw) == "null" {
		return nil, false
	}
	return raw, true
}

// text returns a string field, "" when absent.
func (f fields) text(name string) (string, *problem) {
	raw, ok := f.get(name)
	if !ok {
		return "", nil
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return "", invalid("body."+name, "string_type", "Input should be a valid string", repr(raw))
	}
	return s, nil
}

// flag returns a boolean as pydantic's lax mode does: 1, "true", "on", "yes" too.
func (f fields) flag(name string) (bool, *problem) {
	raw, ok := f.get(name)
	if !ok {
		return false, nil
	}
	switch strings.ToLower(repr(raw)) {
	case "true", "1", "1.0", "t", "y", "yes", "on":
		return true, nil
	case "false", "0", "0.0", "f", "n", "no", "off":
		return false, nil
	}
	return false, invalid("body."+name, "bool_parsing", "Input should be a valid boolean, unable to interpret input", repr(raw))
}

// integer returns a whole number as pydantic's lax mode does: 3.0 and "3" too.
// set is false when it is absent.
func (f fields) integer(name string) (v int64, set bool, p *problem) {
	raw, ok := f.get(name)
	if !ok {
		return 0, false, nil
	}
	shown := repr(raw)
	switch shown {
	case "True":
		return 1, true, nil
	case "False":
		return 0, true, nil
	}
	if v, err := strconv.ParseInt(strings.TrimSpace(shown), 10, 64); err == nil {
		return v, true, nil
	}
	x, err := strconv.ParseFloat(shown, 64)
	switch {
	case err != nil && raw[0] == '"':
		return 0, true, invalid("body."+name, "int_parsing", "Input should be a valid integer, unable to parse string as an integer", shown)
	case err != nil:
		return 0, true, invalid("body."+name, "int_type", "Input should be a valid integer", shown)
	case x != math.Trunc(x) || math.Abs(x) > 1<<53:
		return 0, true, invalid("body."+name, "int_from_float", "Input should be a valid integer, got a number with a fractional part", shown)
	}
	return int64(x), true, nil
}

// number returns a float, and whether it was given.
func (f fields) number(name string) (v float64, set bool, p *problem) {
	raw, ok := f.get(name)
	if !ok {
		return 0, false, nil
	}
	x, err := strconv.ParseFloat(repr(raw), 64)
	if err != nil {
		return 0, true, invalid("body."+name, "float_type", "Input should be a valid number", repr(raw))
	}
	return x, true, nil
}

// object returns a field that is itself an object, nil when absent.
func (f fields) object(name string) (fields, *problem) {
	raw, ok := f.get(name)
	if !ok {
		return nil, nil
	}
	var o fields
	if json.Unmarshal(raw, &o) != nil {
		return nil, invalid("body."+name, "model_attributes_type", "Input should be a valid dictionary or object to extract fields from", repr(raw))
	}
	return o, nil
}

// list returns a field that is a list. A missing one is an error.
func (f fields) list(name string) ([]json.RawMessage, *problem) {
	raw, ok := f[name]
	if !ok {
		return nil, f.missing(name)
	}
	var l []json.RawMessage
	if json.Unmarshal(raw, &l) != nil || l == nil {
		return nil, invalid("body."+name, "list_type", "Input should be a valid list", repr(raw))
	}
	return l, nil
}

// strings returns a field that is a string or a list of strings.
func (f fields) strings(name string) ([]string, *problem) {
	raw, ok := f.get(name)
	if !ok {
		return nil, nil
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}, nil
	}
	var many []string
	if json.Unmarshal(raw, &many) != nil {
		return nil, invalid("body."+name, "string_type", "Input should be a valid string", repr(raw))
	}
	return many, nil
}

func (f fields) missing(name string) *problem {
	return invalid("body."+name, "missing", "Field required", fmt.Sprintf("<dict of %d items>", len(f)))
}
