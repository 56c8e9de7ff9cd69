package admin

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"tollgate/internal/ledger"
)

// queryError names a query parameter with a wrong value.
type queryError struct{ param, message string }

func (e *queryError) Error() string { return e.param + ": " + e.message }

// onlyKnown refuses parameters that the route does not have, or that are given twice:
// the answer would be to another question than the one that was asked.
func onlyKnown(q url.Values, known ...string) error {
	for name, values := range q {
		switch {
		case !slices.Contains(known, name):
			return &queryError{name, "unknown parameter"}
		case len(values) > 1:
			return &queryError{name, "the parameter is given more than once"}
		}
	}
	return nil
}

// report reads by, since, until and format, and asks the ledger.
func (a *API) report(r *http.Request) (groups []ledger.Group, query ledger.Query, format ledger.Format, err error) {
	q := r.URL.Query()
	if err := onlyKnown(q, "by", "since", "until", "format", "key", "user", "model"); err != nil {
		return nil, query, "", err
	}
	format = ledger.JSON
	if q.Has("format") {
		format = ledger.Format(q.Get("format"))
	}
	if format != ledger.JSON && format != ledger.CSV {
		return nil, query, "", &queryError{"format", "format is json or csv"}
	}
	query = ledger.Query{By: ledger.ByKey, KeyID: q.Get("key"), User: q.Get("user"), Model: q.Get("model")}
	if q.Has("by") {
		if query.By, query.Then, err = ledger.ParseBy(q.Get("by")); err != nil {
			return nil, query, "", &queryError{"by", err.Error()}
		}
	}
	if err := readTimes(q, &query.Since, &query.Until); err != nil {
		return nil, query, "", err
	}
	if err := query.Validate(); err != nil {
		return nil, query, "", &queryError{"by", err.Error()}
	}
	groups, err = a.o.Ledger.Usage(r.Context(), query)
	if groups == nil {
		groups = []ledger.Group{}
	}
	return groups, query, format, err
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // cannot happen: the type always encodes
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

// sayLag tells in headers how far behind a report is that comes from the
// ledger of all gateways.
func (a *API) sayLag(w http.ResponseWriter, r *http.Request) error {
	if a.o.Central == nil {
		return nil
	}
	behind, gone, err := a.o.Central.Lag(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("X-Tollgate-Behind-Seconds", strconv.FormatFloat(behind.Seconds(), 'f', 1, 64))
	if len(gone) > 0 {
		w.Header().Set("X-Tollgate-Silent-Gateways", strings.Join(gone, ", "))
	}
	return nil
}
