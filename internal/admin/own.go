package admin

import (
	"errors"
	"net/http"
	"time"

	"tollgate/internal/admission"
	"tollgate/internal/apikey"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
)

// own gives a page the key of its request.
func (a *API) own(page func(http.ResponseWriter, *http.Request, *apikey.Key)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		key := callerOf(r).key
		if key == nil { // a command of this host
			refuse(w, r, admission.Deny(admission.InvalidKey))
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		page(w, r, key)
	}
}

// Own is the answer of /v1/key.
type Own struct {
	apikey.Info
	Effective limitsView `json:"effective_limits"` // the key's own limit, or the gateway's where the key has none
	Now       limit.View `json:"now"`
	QuotaLeft *int64     `json:"quota_remaining"` // null = unlimited
	// ResetsAt is when the quota begins again; null where it never does.
	ResetsAt *time.Time `json:"quota_resets_at"`
}

// limitsView are limits as JSON; null = unlimited.
type limitsView struct {
	Concurrent        *int64 `json:"concurrent"`
	RequestsPerMinute *int64 `json:"requests_per_minute"`
	TokensPerMinute   *int64 `json:"tokens_per_minute"`
	Quota             *int64 `json:"quota"`
}

func limitsOf(caps limit.Caps) limitsView {
	return limitsView{
		Concurrent: shown(caps.Concurrent), RequestsPerMinute: shown(caps.Requests),
		TokensPerMinute: shown(caps.Tokens), Quota: shown(caps.Quota),
	}
}

// state is a key with its limits and what is used of them.
func (a *API) state(r *http.Request, key *apikey.Key) (Own, error) {
	now := time.Now()
	caps := key.Caps(a.o.Caps, now)
	view, err := a.o.Limits.Key(r.Context(), key.ID, caps)
	if err == nil && view.QuotaUsed < 0 {
		// Nothing was asked since the start: the ledger knows.
		view.QuotaPeriod = caps.QuotaPeriod
		view.QuotaUsed, err = a.o.Ledger.Used(r.Context(), key.ID, key.QuotaPeriod.Start(now), time.Time{})
	}
	if err != nil {
		return Own{}, err
	}
	own := Own{Info: key.Info(), Effective: limitsOf(caps), Now: view}
	if caps.Quota != limit.Unlimited {
		left := max(0, caps.Quota-view.QuotaUsed-view.QuotaHeld)
		own.QuotaLeft = &left
		if end := key.QuotaPeriod.End(now); !end.IsZero() {
			own.ResetsAt = &end
		}
	}
	return own, nil
}

func (a *API) ownKey(w http.ResponseWriter, r *http.Request, key *apikey.Key) {
	if err := onlyKnown(r.URL.Query()); err != nil {
		wrongQuery(w, err)
		return
	}
	own, err := a.state(r, key)
	if err != nil {
		a.broken(w, "cannot read limits", err)
		return
	}
	own.Note = "" // only administrators see notes
	writeJSON(w, http.StatusOK, own)
}

// ownUsage is the report of /admin/usage for one key. Its user is that of the key, so
// it may be grouped by the day, the model or the person behind the key.
func (a *API) ownUsage(w http.ResponseWriter, r *http.Request, key *apikey.Key) {
	q := r.URL.Query()
	if err := onlyKnown(q, "by", "since", "until"); err != nil {
		wrongQuery(w, err)
		return
	}
	query := ledger.Query{By: ledger.ByDay, KeyID: key.ID}
	if q.Has("by") {
		query.By = ledger.By(q.Get("by"))
	}
	if query.By != ledger.ByDay && query.By != ledger.ByModel && query.By != ledger.ByEndUser {
		wrongQuery(w, &queryError{"by", "by is day, model or end_user"})
		return
	}
	err := readTimes(q, &query.Since, &query.Until)
	if err == nil {
		err = query.Validate()
	}
	if err != nil {
		wrongQuery(w, err)
		return
	}
	groups, err := a.o.Ledger.Usage(r.Context(), query)
	if err == nil {
		err = a.sayLag(w, r)
	}
	if err != nil {
		a.broken(w, "cannot read the ledger", err)
		return
	}
	total := ledger.Total(groups)
	writeJSON(w, http.StatusOK, map[string]any{
		"key_id": key.ID, "usage": append([]ledger.Group{}, groups...),
		"requests": total.Requests, "prompt_tokens": total.PromptTokens,
		"completion_tokens": total.CompletionTokens, "total_tokens": total.TotalTokens,
		"cached_tokens": total.CachedTokens, "errors": total.Errors,
	})
}

// ownRequests are the key's running requests, and its last ones with the reason of
// their end.
func (a *API) ownRequests(w http.ResponseWriter, r *http.Request, key *apikey.Key) {
	page, err := readPage(r.URL.Query(), "since", "until", "limit", "cursor", "model", "end_reason")
	if err != nil {
		wrongQuery(w, err)
		return
	}
	page.KeyID = key.ID
	live := []admission.Running{}
	for _, run := range a.live(r.Context()) {
		if run.KeyID == key.ID {
			live = append(live, run)
		}
	}
	a.writePage(w, r, page, false, map[string]any{"live": live})
}

// wrongQuery refuses a query parameter.
func wrongQuery(w http.ResponseWriter, err error) {
	var bad *queryError
	if errors.As(err, &bad) {
		fail(w, http.StatusBadRequest, "invalid_request", bad.param, bad.message)
		return
	}
	fail(w, http.StatusBadRequest, "invalid_request", "", err.Error())
}
