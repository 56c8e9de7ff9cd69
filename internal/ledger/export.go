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

	"tollgate/internal/usage"
)

// Line is a row as it is exported: the ledger's column names, times as RFC
// 3339, null for what is not known.
type Line struct {
	LeaseID          string     `json:"lease_id"`
	RequestID        string     `json:"request_id"`
	KeyID            string     `json:"key_id"`
	User             string     `json:"user"`
	Model            string     `json:"model"`
	Endpoint         string     `json:"endpoint"`
	Engine           string     `json:"engine"`
	Stream           bool       `json:"stream"`
	N                int        `json:"n"`
	Prompts          int        `json:"prompts"`
	Status           int        `json:"status"`
	StartedAt        *time.Time `json:"started_at"`
	FirstByteAt      *time.Time `json:"first_byte_at"`
	EndedAt          *time.Time `json:"ended_at"`
	EndReason        *string    `json:"end_reason"`
	Quality          *string    `json:"quality"`
	PromptTokens     *int64     `json:"prompt_tokens"`
	CompletionTokens *int64     `json:"completion_tokens"`
	CachedTokens     *int64     `json:"cached_tokens"`
	ReasoningTokens  *int64     `json:"reasoning_tokens"`
	ReservedTokens   int64      `json:"reserved_tokens"`
	ClientAddr       string     `json:"client_addr"`
}

// LineOf is the exported form of a row.
func LineOf(r *Record) Line {
	return Line{
		LeaseID: r.LeaseID, RequestID: r.RequestID, KeyID: r.KeyID, User: r.User, Model: r.Model,
		Endpoint: r.Endpoint, Engine: r.Engine, Stream: r.Stream, N: r.N, Prompts: r.Prompts, Status: r.Status,
		StartedAt: orNil(r.StartedAt, time.Time{}), FirstByteAt: orNil(r.FirstByteAt, time.Time{}),
		EndedAt: orNil(r.EndedAt, time.Time{}), EndReason: orNil(string(r.Reason), ""), Quality: orNil(string(r.Quality), ""),
		PromptTokens: orNil(r.Counts.Prompt, usage.Unsaid), CompletionTokens: orNil(r.Counts.Completion, usage.Unsaid),
		CachedTokens: orNil(r.Counts.Cached, usage.Unsaid), ReasoningTokens: orNil(r.Counts.Reasoning, usage.Unsaid),
		ReservedTokens: r.Reserved, ClientAddr: r.ClientAddr,
	}
}

func orNil[T comparable](v, none T) *T {
	if v == none {
		return nil
	}
	return &v
}

// Exporter writes rows one after the other. Close it to see what is buffered
// written.
type Exporter interface {
	Row(r *Record) error
	Close() error
}

// NewJSONLines exports rows as one JSON object a line.
func NewJSONLines(w io.Writer) Exporter { return jsonLines{json.NewEncoder(w)} }

type jsonLines struct{ enc *json.Encoder }

func (e jsonLines) Row(r *Record) error {
	if err := e.enc.Encode(LineOf(r)); err != nil {
		return fmt.Errorf("write row: %w", err)
	}
	return nil
}

func (jsonLines) Close() error { return nil }

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
	return e.w.Write([]string{
		"lease_id", "request_id", "key_id", "user", "model", "endpoint", "engine", "stream", "n", "prompts", "status",
		"started_at", "first_byte_at", "ended_at", "end_reason", "quality", "prompt_tokens", "completion_tokens",
		"cached_tokens", "reasoning_tokens", "reserved_tokens", "client_addr",
	})
}

func (e *csvRows) Row(r *Record) error {
	if err := e.head(); err != nil {
		return fmt.Errorf("write row: %w", err)
	}
	l := LineOf(r)
	if err := e.w.Write([]string{
		inert(l.LeaseID), inert(l.RequestID), inert(l.KeyID), inert(l.User), inert(l.Model), inert(l.Endpoint), inert(l.Engine),
		strconv.FormatBool(l.Stream), strconv.Itoa(l.N), strconv.Itoa(l.Prompts), strconv.Itoa(l.Status),
		field(l.StartedAt), field(l.FirstByteAt), field(l.EndedAt), field(l.EndReason), field(l.Quality),
		field(l.PromptTokens), field(l.CompletionTokens), field(l.CachedTokens), field(l.ReasoningTokens),
		strconv.FormatInt(l.ReservedTokens, 10), inert(l.ClientAddr),
	}); err != nil {
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

// inert is text as a cell of CSV that no spreadsheet computes: one that begins
// with =, +, -, @, a tab or a line end (their full-width forms too) gets an
// apostrophe in front, which spreadsheets hide. Users and models are named by
// people, and a report is opened by somebody else.
func inert(s string) string {
	if r, _ := utf8.DecodeRuneInString(s); strings.ContainsRune("=+-@\t\r\n＝＋－＠", r) {
		return "'" + s
	}
	return s
}

func field[T any](v *T) string {
	switch v := any(v).(type) {
	case *time.Time:
		if v != nil {
			return v.Format(time.RFC3339Nano)
		}
	case *string:
		if v != nil {
			return *v
		}
	case *int64:
		if v != nil {
			return strconv.FormatInt(*v, 10)
		}
	}
	return ""
}
