package admin

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"tollgate/internal/ledger"
)

// pageLimit is the number of rows of a page by default.
const pageLimit = 50

// readTimes reads since and until as [ledger.ParseTime] does.
func readTimes(q url.Values, since, until *time.Time) error {
	for _, t := range []struct {
		name string
		to   *time.Time
	}{{"since", since}, {"until", until}} {
		var err error
		if *t.to, err = ledger.ParseTime(q.Get(t.name), time.Now()); err != nil {
			return &queryError{t.name, err.Error()}
		}
	}
	return nil
}

// readPage reads the query parameters that choose a page of rows.
func readPage(q url.Values, known ...string) (ledger.Page, error) {
	p := ledger.Page{Limit: pageLimit}
	if err := onlyKnown(q, known...); err != nil {
		return p, err
	}
	if q.Has("limit") {
		n, err := strconv.Atoi(q.Get("limit"))
		if err != nil {
			return p, &queryError{"limit", "limit is a whole number from 1 to " + strconv.Itoa(ledger.MaxPage)}
		}
		p.Limit = n
	}
	if q.Has("open") {
		open, err := strconv.ParseBool(q.Get("open"))
		if err != nil {
			return p, &queryError{"open", "open is true or false"}
		}
		p.Open = open
	}
	p.KeyID, p.User, p.Model = q.Get("key"), q.Get("user"), q.Get("model")
	p.Reason, p.RequestID, p.After = ledger.EndReason(q.Get("end_reason")), q.Get("request_id"), q.Get("cursor")
	if err := readTimes(q, &p.Since, &p.Until); err != nil {
		return p, err
	}
	return p, p.Validate()
}

// rows answers /admin/ledger: rows newest first.
func (a *API) rows(w http.ResponseWriter, r *http.Request) {
	page, err := readPage(r.URL.Query(), "since", "until", "limit", "cursor", "key", "user", "model", "end_reason", "request_id", "open")
	if err != nil {
		wrongQuery(w, err)
		return
	}
	a.writePage(w, r, page, true, map[string]any{})
}

// writePage adds a page of rows to answer and sends it. inside tells whether the caller
// is an administrator, who also sees the addresses of engines.
func (a *API) writePage(w http.ResponseWriter, r *http.Request, page ledger.Page, inside bool, answer map[string]any) {
	rows, next, err := a.o.Ledger.Newest(r.Context(), page)
	if err != nil {
		a.broken(w, "cannot read the ledger", err)
		return
	}
	lines := make([]ledger.Line, len(rows))
	for i := range rows {
		if !inside {
			rows[i].Engine = ""
		}
		lines[i] = ledger.LineOf(&rows[i])
	}
	answer["requests"], answer["next_cursor"] = lines, nil
	if next != "" {
		answer["next_cursor"] = next
	}
	writeJSON(w, http.StatusOK, answer)
}
