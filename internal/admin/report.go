package admin

import (
	"encoding/csv"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"tollgate/internal/ledger"
)

// queryError is a query parameter that makes no sense.
type queryError struct{ param, message string }

func (e *queryError) Error() string { return e.param + ": " + e.message }

// onlyKnown refuses parameters that the route does not have: a typo must not
// answer another question than the one that was asked.
func onlyKnown(q url.Values, known ...string) error {
	for name := range q {
		if !slices.Contains(known, name) {
			return &queryError{name, "unknown parameter"}
		}
	}
	return nil
}

// report reads by, since, until and format, and asks the ledger.
func (a *API) report(r *http.Request) (groups []ledger.Group, format string, err error) {
	q := r.URL.Query()
	if err := onlyKnown(q, "by", "since", "until", "format"); err != nil {
		return nil, "", err
	}
	format = q.Get("format")
	if format != "" && format != "json" && format != "csv" {
		return nil, "", &queryError{"format", "format is json or csv"}
	}
	query := ledger.Query{By: ledger.ByKey}
	if by := q.Get("by"); by != "" {
		query.By = ledger.By(by)
	}
	for name, to := range map[string]*time.Time{"since": &query.Since, "until": &query.Until} {
		if v := q.Get(name); v != "" {
			if *to, err = ledger.ParseTime(v, time.Now()); err != nil {
				return nil, "", &queryError{name, err.Error()}
			}
		}
	}
	if err := query.Validate(); err != nil {
		return nil, "", &queryError{"by", err.Error()}
	}
	groups, err = a.o.Ledger.Usage(r.Context(), query)
	if groups == nil {
		groups = []ledger.Group{}
	}
	return groups, format, err
}

func writeCSV(w http.ResponseWriter, groups []ledger.Group) {
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	out := csv.NewWriter(w)
	_ = out.Write([]string{"group", "requests", "prompt_tokens", "completion_tokens", "total_tokens"})
	for _, g := range groups {
		_ = out.Write([]string{
			g.Group, strconv.FormatInt(g.Requests, 10), strconv.FormatInt(g.PromptTokens, 10),
			strconv.FormatInt(g.CompletionTokens, 10), strconv.FormatInt(g.TotalTokens, 10),
		})
	}
	out.Flush()
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // only a type of ours that cannot be JSON
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
