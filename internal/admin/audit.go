package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"tollgate/internal/audit"
)

// recorded writes into the audit what the request is about to do, and answers where
// that fails: nothing is changed that is not on record. Edits of keys are told by
// their results instead, wherever they were made.
func (a *API) recorded(w http.ResponseWriter, r *http.Request, action, target string, what map[string]any) bool {
	e := audit.Entry{Editor: editor(r), Action: action, Target: target}
	if what != nil {
		raw, err := json.Marshal(what)
		if err != nil {
			a.broken(w, "cannot describe the change", err)
			return false
		}
		e.After = raw
	}
	if err := a.o.Ledger.Record(r.Context(), e); err != nil {
		a.broken(w, "cannot write the audit, and has changed nothing", err)
		return false
	}
	return true
}

// audit answers with entries, newest first.
func (a *API) audit(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, before := pageLimit, int64(0)
	err := onlyKnown(q, "limit", "before")
	if err == nil && q.Has("limit") {
		if limit, err = strconv.Atoi(q.Get("limit")); err != nil || limit < 1 || limit > maxAudit {
			err = &queryError{"limit", "limit is a whole number from 1 to " + strconv.Itoa(maxAudit)}
		}
	}
	if err == nil && q.Has("before") {
		if before, err = strconv.ParseInt(q.Get("before"), 10, 64); err != nil || before < 1 {
			err = &queryError{"before", "before is the seq of an entry, from 1"}
		}
	}
	if err != nil {
		wrongQuery(w, err)
		return
	}
	entries, err := a.o.Ledger.Audit(r.Context(), before, limit)
	if err != nil {
		a.broken(w, "cannot read the audit", err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"entries": append([]audit.Entry{}, entries...)})
}

// maxAudit is the most entries of one answer.
const maxAudit = 1000

// verifyAudit walks the whole chain.
func (a *API) verifyAudit(w http.ResponseWriter, r *http.Request) {
	n, err := a.o.Ledger.VerifyAudit(r.Context())
	switch {
	case errors.Is(err, audit.ErrBroken):
		writeJSON(w, http.StatusOK, map[string]any{"ok": false, "entries": n, "message": err.Error()})
	case err != nil:
		a.broken(w, "cannot read the audit", err)
	default:
		writeJSON(w, http.StatusOK, map[string]any{"ok": true, "entries": n, "message": ""})
	}
}
