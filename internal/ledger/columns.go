package ledger

import (
	"fmt"
	"time"

	"tollgate/internal/usage"
)

// Column is one column of the ledger: its name in files, exports and tables,
// and where a [Record] holds its value.
//
// The list of columns is the only place that names them. What reads or writes
// whole rows walks [Columns].
type Column struct {
	Name  string
	Parts Part
	ref   func(*Record) any
}

// Part says which write of a row sets a column.
type Part uint8

// The writes. A column may be set by more than one of them.
const (
	Begun   Part = 1 << iota // the intent
	Counted                  // a checkpoint
	Settled                  // a settlement or a correction
)

// Columns lists every column once, in the order of exports. New columns come
// last, so that a program that reads fields by position keeps working.
func Columns() []Column { return columns }

var columns = []Column{
	{"lease_id", Begun, func(r *Record) any { return &r.LeaseID }},
	{"request_id", Begun, func(r *Record) any { return &r.RequestID }},
	{"key_id", Begun, func(r *Record) any { return &r.KeyID }},
	{"user", Begun, func(r *Record) any { return &r.User }},
	{"model", Begun, func(r *Record) any { return &r.Model }},
	{"endpoint", Begun, func(r *Record) any { return &r.Endpoint }},
	{"engine", Begun | Settled, func(r *Record) any { return &r.Engine }},
	{"stream", Begun, func(r *Record) any { return &r.Stream }},
	{"n", Begun, func(r *Record) any { return &r.N }},
	{"prompts", Begun, func(r *Record) any { return &r.Prompts }},
	{"status", Settled, func(r *Record) any { return &r.Status }},
	{"started_at", Begun, func(r *Record) any { return &r.StartedAt }},
	{"first_byte_at", Settled, func(r *Record) any { return &r.FirstByteAt }},
	{"ended_at", Settled, func(r *Record) any { return &r.EndedAt }},
	{"end_reason", Settled, func(r *Record) any { return &r.Reason }},
	{"quality", Settled, func(r *Record) any { return &r.Quality }},
	{"prompt_tokens", Counted | Settled, func(r *Record) any { return (*tokens)(&r.Counts.Prompt) }},
	{"completion_tokens", Counted | Settled, func(r *Record) any { return (*tokens)(&r.Counts.Completion) }},
	{"cached_tokens", Counted | Settled, func(r *Record) any { return (*tokens)(&r.Counts.Cached) }},
	{"reasoning_tokens", Counted | Settled, func(r *Record) any { return (*tokens)(&r.Counts.Reasoning) }},
	{"reserved_tokens", Begun, func(r *Record) any { return &r.Reserved }},
	{"client_addr", Begun, func(r *Record) any { return &r.ClientAddr }},
	{"requested_model", Begun, func(r *Record) any { return &r.RequestedModel }},
	{"meter", Begun, func(r *Record) any { return &r.Meter }},
	{"change", Settled, func(r *Record) any { return (*change)(&r.Change) }},
	{"gateway", Begun, func(r *Record) any { return &r.Gateway }},
	{"end_user", Begun, func(r *Record) any { return &r.EndUser }},
	{"secret", Begun, func(r *Record) any { return &r.Secret }},
	{"trace", Begun, func(r *Record) any { return &r.Trace }},
}

// Kind is the type of a column's values.
type Kind uint8

// The kinds.
const (
	Text   Kind = iota // string
	Flag               // bool
	Number             // int64
	Moment             // time.Time in whole microseconds
)

// Kind is the type that Value returns where something is known.
func (c Column) Kind() Kind {
	switch c.ref(&Record{}).(type) {
	case *bool:
		return Flag
	case *int, *int64, *tokens, *change:
		return Number
	case *time.Time:
		return Moment
	}
	return Text
}

type (
	tokens int64 // a count that may be [usage.Unsaid]
	change int64 // a change number, 0 where there is none
)

// Value returns the column of r as a string, bool, int64 or time.Time, and nil
// where nothing is known: a time or change number that is zero, a reason or
// quality that is empty, a count that is [usage.Unsaid]. Other text may be "".
func (c Column) Value(r *Record) any {
	switch v := c.ref(r).(type) {
	case *string:
		return *v
	case *bool:
		return *v
	case *int:
		return int64(*v)
	case *int64:
		return *v
	case *time.Time:
		return known(*v, time.Time{}, *v)
	case *EndReason:
		return known(*v, "", string(*v))
	case *Quality:
		return known(*v, "", string(*v))
	case *tokens:
		return known(*v, tokens(usage.Unsaid), int64(*v))
	case *change:
		return known(*v, 0, int64(*v))
	}
	panic("ledger: column " + c.Name + " has a type of its own")
}

func known[T comparable](v, none T, as any) any {
	if v == none {
		return nil
	}
	return as
}

// Set puts a value of the column into r: what Value returns, or the same as a
// database hands it out (a time as int64 of Unix µs, a bool as int64, text as
// bytes). Nil is what is not known.
func (c Column) Set(r *Record, value any) error {
	if b, ok := value.([]byte); ok {
		value = string(b)
	}
	var ok bool
	switch c.Kind() {
	case Text:
		var v string
		v, ok = value.(string)
		c.setText(r, v)
	case Flag:
		flag, isFlag := value.(bool)
		number, isNumber := value.(int64)
		*c.ref(r).(*bool) = flag || number != 0 //nolint:forcetypeassert,errcheck // by its kind
		ok = isFlag || isNumber
	case Moment:
		at, isTime := value.(time.Time)
		micros, isNumber := value.(int64)
		if isNumber {
			at = time.UnixMicro(micros)
		}
		*c.ref(r).(*time.Time) = Micro(at) //nolint:forcetypeassert,errcheck // by its kind
		ok = isTime || isNumber
	case Number:
		var v int64
		v, ok = value.(int64)
		c.setNumber(r, v, value != nil)
	}
	if !ok && value != nil {
		return fmt.Errorf("column %s cannot hold %T", c.Name, value)
	}
	return nil
}

func (c Column) setText(r *Record, v string) {
	switch to := c.ref(r).(type) {
	case *string:
		*to = v
	case *EndReason:
		*to = EndReason(v)
	case *Quality:
		*to = Quality(v)
	}
}

func (c Column) setNumber(r *Record, v int64, known bool) {
	switch to := c.ref(r).(type) {
	case *int:
		*to = int(v)
	case *int64:
		*to = v
	case *change:
		*to = change(v)
	case *tokens:
		if *to = tokens(v); !known {
			*to = tokens(usage.Unsaid)
		}
	}
}
