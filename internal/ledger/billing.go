package ledger

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"tollgate/internal/usage"
)

// Subject is who an event is put down to.
type Subject string

// The subjects.
const (
	SubjectKey     Subject = "key"
	SubjectUser    Subject = "user"
	SubjectEndUser Subject = "end_user" // the user where a row names no end user
)

// of names the subject of a row.
func (s Subject) of(r *Record) string {
	switch {
	case s == SubjectKey:
		return r.KeyID
	case s == SubjectEndUser && r.EndUser != "":
		return r.EndUser
	}
	return r.User
}

// event is a settled row as CloudEvents 1.0 has it, in the shape that usage
// meters such as OpenMeter take.
type event struct {
	SpecVersion string    `json:"specversion"`
	ID          string    `json:"id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Subject     string    `json:"subject"`
	Time        time.Time `json:"time"`
	ContentType string    `json:"datacontenttype"`
	Data        eventData `json:"data"`
}

type eventData struct {
	KeyID            string `json:"key_id"`
	User             string `json:"user"`
	EndUser          string `json:"end_user"`
	Model            string `json:"model"`
	RequestedModel   string `json:"requested_model"`
	Endpoint         string `json:"endpoint"`
	Gateway          string `json:"gateway"`
	EndReason        string `json:"end_reason"`
	Quality          string `json:"quality"`
	PromptTokens     int64  `json:"prompt_tokens"`
	CompletionTokens int64  `json:"completion_tokens"`
	CachedTokens     int64  `json:"cached_tokens"`
	ReasoningTokens  int64  `json:"reasoning_tokens"`
	TotalTokens      int64  `json:"total_tokens"`
}

// EventSource and EventType are those of the events. A receiver that takes an
// event once for each source and id takes a request once, however often it is
// sent: the id is the lease id.
const (
	EventSource = "tollgate"
	EventType   = "tollgate.request"
)

// Events are settled rows as a JSON array of CloudEvents.
func Events(rows []Record, subject Subject) ([]byte, error) {
	list := make([]event, len(rows))
	for i := range rows {
		r := &rows[i]
		c := Minus(r.Counts, usage.Counts{}) // what is not said is 0
		list[i] = event{
			SpecVersion: "1.0", ID: r.LeaseID, Source: EventSource, Type: EventType, Subject: subject.of(r),
			Time: r.EndedAt, ContentType: "application/json",
			Data: eventData{
				KeyID: r.KeyID, User: r.User, EndUser: r.EndUser, Model: r.Model, RequestedModel: r.RequestedModel,
				Endpoint: r.Endpoint, Gateway: r.Gateway, EndReason: string(r.Reason), Quality: string(r.Quality),
				PromptTokens: c.Prompt, CompletionTokens: c.Completion, CachedTokens: c.Cached, ReasoningTokens: c.Reasoning,
				TotalTokens: c.Prompt + c.Completion,
			},
		}
	}
	text, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("encode events: %w", err)
	}
	return text, nil
}

// focusColumns are columns of the FinOps cost and usage specification (FOCUS)
// 1.2, and two of our own. Costs are 0 and their currency XXX, which means none:
// the ledger knows no prices.
var focusColumns = []string{
	"BillingAccountId", "BillingCurrency", "BilledCost", "EffectiveCost", "ListCost", "ContractedCost",
	"BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd",
	"ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency",
	"ConsumedQuantity", "ConsumedUnit", "ProviderName", "PublisherName", "InvoiceIssuerName",
	"ServiceCategory", "ServiceName", "ResourceId", "ResourceName", "ResourceType",
	"SkuId", "SkuMeter", "SubAccountId", "SubAccountName", "Tags", "x_LeaseId", "x_Change",
}

// NewFOCUS exports settled rows as FOCUS-shaped CSV: a line for the prompt
// tokens of a request and one for its completion tokens. A receiver that takes a
// line once for each x_LeaseId and SkuMeter takes each token once; a line with a
// higher x_Change replaces one with a lower.
func NewFOCUS(w io.Writer) Exporter { return &focus{w: csv.NewWriter(w)} }

type focus struct {
	w      *csv.Writer
	headed bool
}

func (e *focus) head() error {
	if e.headed {
		return nil
	}
	e.headed = true
	return e.w.Write(focusColumns)
}

func (e *focus) Row(r *Record) error {
	if err := e.head(); err != nil {
		return fmt.Errorf("write charge: %w", err)
	}
	for _, m := range []struct {
		meter  string
		tokens int64
	}{{"Prompt tokens", r.Counts.Prompt}, {"Completion tokens", r.Counts.Completion}} {
		line, err := charge(r, m.meter, max(m.tokens, 0))
		if err == nil {
			err = e.w.Write(line)
		}
		if err != nil {
			return fmt.Errorf("write charge: %w", err)
		}
	}
	return nil
}

// charge is one line, in the order of focusColumns.
func charge(r *Record, meter string, tokens int64) ([]string, error) {
	tags, err := json.Marshal(map[string]string{
		"key_id": r.KeyID, "end_user": r.EndUser, "gateway": r.Gateway, "endpoint": r.Endpoint,
		"requested_model": r.RequestedModel, "end_reason": string(r.Reason), "quality": string(r.Quality),
	})
	if err != nil {
		return nil, err
	}
	start := r.StartedAt.UTC()
	month := time.Date(start.Year(), start.Month(), 1, 0, 0, 0, 0, time.UTC)
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	return []string{
		"tollgate", "XXX", "0", "0", "0", "0",
		at(month), at(month.AddDate(0, 1, 0)), at(start), at(r.EndedAt),
		"Usage", "", meter + " of " + Inert(r.Model), "Usage-Based",
		strconv.FormatInt(tokens, 10), "Tokens", "tollgate", "tollgate", "tollgate",
		"AI and Machine Learning", "LLM inference", Inert(r.Engine), Inert(r.Engine), "Inference engine",
		Inert(r.Model), meter, Inert(r.KeyID), Inert(r.User), string(tags), Inert(r.LeaseID), strconv.FormatInt(r.Change, 10),
	}, nil
}

func (e *focus) Close() error {
	err := e.head()
	e.w.Flush()
	if err == nil {
		err = e.w.Error()
	}
	if err != nil {
		return fmt.Errorf("write charges: %w", err)
	}
	return nil
}
