package vllmsim

import (
	"bytes"
	"encoding/json"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
)

// schema is as much of a JSON schema as values are made from.
type schema struct {
	Type       typeNames         `json:"type"`
	Enum       []json.RawMessage `json:"enum"`
	Const      json.RawMessage   `json:"const"`
	Required   []string          `json:"required"`
	Properties map[string]schema `json:"properties"`
	Items      *schema           `json:"items"`
	Prefix     []schema          `json:"prefixItems"`
	MinItems   int               `json:"minItems"`
	AnyOf      []schema          `json:"anyOf"`
	OneOf      []schema          `json:"oneOf"`
	AllOf      []schema          `json:"allOf"`
	Ref        string            `json:"$ref"`
	Defs       map[string]schema `json:"$defs"`
	OldDefs    map[string]schema `json:"definitions"`
	Format     string            `json:"format"`
	Pattern    string            `json:"pattern"`
	MinLength  int               `json:"minLength"`
	MaxLength  *int              `json:"maxLength"`
	Minimum    *float64          `json:"minimum"`
	Above      *float64          `json:"exclusiveMinimum"`
	Maximum    *float64          `json:"maximum"`
	Below      *float64          `json:"exclusiveMaximum"`
	Multiple   float64           `json:"multipleOf"`
}

// typeNames is the type of a schema: one name or several.
type typeNames []string

// UnmarshalJSON reads both forms.
func (t *typeNames) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = typeNames{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// UnmarshalJSON reads a schema; true and false are schemas too, and anything that
// cannot be read allows everything.
func (s *schema) UnmarshalJSON(b []byte) error {
	type plain schema
	if json.Unmarshal(b, (*plain)(s)) != nil {
		*s = schema{}
	}
	return nil
}

// deepest is how far a schema that names itself is followed.
const deepest = 12

// sampler makes one value out of a schema.
type sampler struct{ root *schema }

// sample is the least value that fits, in JSON as Python writes it.
func (s *schema) sample() string { return sampler{s}.value(s, 0) }

func (m sampler) value(s *schema, depth int) string {
	switch {
	case s == nil || depth > 2*deepest:
		return "null"
	case len(s.Const) > 0:
		return string(s.Const)
	case len(s.Enum) > 0:
		return string(s.Enum[0])
	}
	if other, found := m.instead(s, depth); found {
		return m.value(other, depth+1)
	}
	switch s.kind() {
	case "object":
		return m.object(s, depth)
	case "array":
		return m.array(s, depth)
	case "integer":
		return strconv.FormatInt(int64(s.number(true)), 10)
	case "number":
		return strconv.FormatFloat(s.number(false), 'g', -1, 64)
	case "boolean":
		return "true"
	case "null":
		return "null"
	}
	return string(appendString(nil, s.text()))
}

// instead is the schema to follow in place of s: what it refers to, or one of its
// alternatives.
func (m sampler) instead(s *schema, depth int) (*schema, bool) {
	switch {
	case s.Ref != "":
		return m.target(s.Ref), true
	case len(s.AnyOf) > 0:
		return taken(s.AnyOf, depth), true
	case len(s.OneOf) > 0:
		return taken(s.OneOf, depth), true
	case len(s.AllOf) > 0:
		return m.joined(s), true
	}
	return nil, false
}

// taken is the alternative to take: the first, and deep down one that ends.
func taken(alternatives []schema, depth int) *schema {
	if depth > deepest {
		for i := range alternatives {
			if k := alternatives[i].kind(); alternatives[i].Ref == "" && k != "object" && k != "array" {
				return &alternatives[i]
			}
		}
	}
	return &alternatives[0]
}

// target is the schema that a reference into this document names.
func (m sampler) target(ref string) *schema {
	if ref == "#" {
		return m.root
	}
	path, name, _ := cutLast(ref, "/")
	defs := m.root.Defs
	if path == "#/definitions" {
		defs = m.root.OldDefs
	}
	s, ok := defs[name]
	if !ok {
		return nil
	}
	return &s
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+len(sep):], true
}

// joined is s with what its allOf adds.
func (m sampler) joined(s *schema) *schema {
	out := *s
	out.AllOf, out.Properties = nil, map[string]schema{}
	for i := range s.AllOf {
		part := &s.AllOf[i]
		for n := 0; part != nil && part.Ref != "" && n < deepest; n++ {
			part = m.target(part.Ref)
		}
		if part == nil {
			continue
		}
		if len(s.AllOf) == 1 && len(s.Required) == 0 && len(s.Properties) == 0 {
			return part
		}
		out.Type = slices.Concat(out.Type, part.Type)
		out.Required = slices.Concat(out.Required, part.Required)
		for name := range part.Properties {
			out.Properties[name] = part.Properties[name]
		}
	}
	for name := range s.Properties {
		out.Properties[name] = s.Properties[name]
	}
	return &out
}

// kind is the type that a value will have: the first that is not null.
func (s *schema) kind() string {
	for _, t := range s.Type {
		if t != "null" {
			return t
		}
	}
	switch {
	case len(s.Type) > 0:
		return "null"
	case len(s.Properties) > 0 || len(s.Required) > 0:
		return "object"
	case s.Items != nil || len(s.Prefix) > 0:
		return "array"
	case s.Minimum != nil || s.Above != nil || s.Maximum != nil || s.Below != nil || s.Multiple > 0:
		return "number"
	}
	return "string"
}

func (m sampler) object(s *schema, depth int) string {
	parts := make([]string, 0, len(s.Required))
	for _, name := range s.Required {
		member := s.Properties[name]
		parts = append(parts, string(appendString(nil, name))+": "+m.value(&member, depth+1))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func (m sampler) array(s *schema, depth int) string {
	n := s.MinItems
	if n == 0 && depth < deepest && s.Items != nil {
		n = 1 // an empty list would show nothing
	}
	n = min(max(n, len(s.Prefix)), 1000)
	parts := make([]string, n)
	for i := range parts {
		item := s.Items
		if i < len(s.Prefix) {
			item = &s.Prefix[i]
		}
		if item == nil {
			item = &schema{}
		}
		parts[i] = m.value(item, depth+1)
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// number is 1 where the bounds allow it, else the nearest that they do.
func (s *schema) number(whole bool) float64 {
	step := s.Multiple
	if step <= 0 {
		step = 1
	}
	if !whole && s.Multiple <= 0 {
		step = 0.5
	}
	v := step * float64(int64(1/step))
	if s.Minimum != nil {
		for v < *s.Minimum {
			v += max(step, *s.Minimum-v-step)
		}
	}
	if s.Above != nil && v <= *s.Above {
		v = *s.Above + step
	}
	if s.Maximum != nil {
		v = min(v, *s.Maximum)
	}
	if s.Below != nil && v >= *s.Below {
		v = *s.Below - step
	}
	return v
}

// formats are the strings of the formats that clients check.
var formats = map[string]string{
	"date-time": "2026-01-01T00:00:00Z", "date": "2026-01-01", "time": "00:00:00Z", "duration": "PT1S",
	"email": "someone@example.com", "uri": "https://example.com/", "url": "https://example.com/",
	"hostname": "example.com", "ipv4": "192.0.2.1", "ipv6": "2001:db8::1", "uuid": "00000000-0000-4000-8000-000000000000",
}

func (s *schema) text() string {
	if t, ok := formats[s.Format]; ok {
		return t
	}
	if s.Pattern != "" {
		if re, err := syntax.Parse(s.Pattern, syntax.Perl); err == nil {
			var b strings.Builder
			match(&b, re.Simplify())
			return b.String()
		}
	}
	text := "simulated"
	for len(text) < min(s.MinLength, 10_000) {
		text += " simulated"
	}
	if s.MaxLength != nil {
		text = text[:min(len(text), max(*s.MaxLength, 0))]
	}
	return text
}

// match writes a short text that the expression matches.
func match(b *strings.Builder, re *syntax.Regexp) {
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			b.WriteRune(r)
		}
	case syntax.OpCharClass:
		b.WriteRune(member(re.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte('a')
	case syntax.OpCapture, syntax.OpPlus:
		match(b, re.Sub[0])
	case syntax.OpRepeat:
		for range re.Min {
			match(b, re.Sub[0])
		}
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			match(b, sub)
		}
	case syntax.OpAlternate:
		match(b, re.Sub[0])
	case syntax.OpNoMatch, syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText,
		syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary, syntax.OpStar, syntax.OpQuest:
	}
}

// member is a character of a class, given as pairs of bounds: one that can be
// read, where there is one.
func member(ranges []rune) rune {
	for _, want := range []rune{'a', '1', 'A', '-'} {
		for i := 0; i+1 < len(ranges); i += 2 {
			if ranges[i] <= want && want <= ranges[i+1] {
				return want
			}
		}
	}
	if len(ranges) == 0 {
		return 'a'
	}
	return ranges[0]
}

// structured is the answer that the request's format asks for, "" where it asks
// for none.
func (x *exchange) structured() (string, *problem) {
	format, bad := x.f.object("response_format")
	if bad != nil {
		return "", bad
	}
	if format == nil { // the responses route
		text, bad := x.f.object("text")
		if bad != nil {
			return "", bad
		}
		if format, bad = text.object("format"); bad != nil {
			return "", bad
		}
	}
	kind, bad := format.text("type")
	switch {
	case bad != nil:
		return "", bad
	case kind == "json_object":
		return `{"answer": "simulated"}`, nil
	case kind != "json_schema":
		return "", nil
	}
	raw, ok := format.get("schema")
	if named, _ := format.object("json_schema"); named != nil {
		raw, ok = named.get("schema")
	}
	if !ok || !bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) {
		return "", badRequest("response_format", "response_format of type json_schema needs a schema")
	}
	s := new(schema)
	_ = json.Unmarshal(raw, s) // it takes whatever it can read
	return s.sample(), nil
}
