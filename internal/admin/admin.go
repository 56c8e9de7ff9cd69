// Package admin serves the gateway's own pages: /health, /metrics, the JSON API under
// /admin, and the pages on which a key sees itself. It authenticates every request
// itself, by the client's key: [API.Edge]. Commands on this host have a door of their
// own: [API.Local].
package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/admission"
	"tollgate/internal/alias"
	"tollgate/internal/apikey"
	"tollgate/internal/audit"
	"tollgate/internal/fleet"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/openai"
	"tollgate/internal/replica"
	"tollgate/internal/route"
)

// Ledger is what the API reads of the ledger.
type Ledger interface {
	Usage(ctx context.Context, q ledger.Query) ([]ledger.Group, error)
	Used(ctx context.Context, keyID string, since, until time.Time) (int64, error)
	Newest(ctx context.Context, p ledger.Page) (rows []ledger.Record, next string, err error)
	Verify(ctx context.Context) ([]ledger.Violation, error)
	Audit(ctx context.Context, before int64, limit int) ([]audit.Entry, error)
	VerifyAudit(ctx context.Context) (int64, error)
	// Record writes what a person is about to do.
	Record(ctx context.Context, entries ...audit.Entry) error
}

// Central is the ledger of all gateways.
type Central interface {
	// Lag says how far the living gateways are behind, and which have not been
	// heard of for a minute.
	Lag(ctx context.Context) (behind time.Duration, gone []string, err error)
}

// Host is one launcher: this host's or another's.
type Host interface {
	// Name names the host in answers.
	Name() string
	// Call asks the control API and returns its status and JSON body.
	Call(ctx context.Context, method, path string, body []byte) (status int, answer []byte, err error)
}

// Replicas are the other gateways that share the limits of this one, which counts
// in both: missing is how many of the others did not answer.
type Replicas interface {
	Requests(ctx context.Context) (live []replica.Running, missing int)
	Cancel(ctx context.Context, requestID string) (cancelled, missing int)
}

// Options are what the API serves. All must be set but Poll, Hosts and Aliases.
type Options struct {
	Gate *admission.Gate
	// Poll asks the meters inside Envoys how far live requests are; it returns when
	// they have said so, or ctx ends. nil: nobody is asked.
	Poll func(ctx context.Context)
	// Replicas is nil where there is no other gateway.
	Replicas Replicas
	Keys     *apikey.Keyring
	Limits   limit.Store
	Caps     limit.Caps // global limits
	Ledger   Ledger
	// Central is where Ledger's reports come from; nil: from this gateway alone.
	Central Central
	// Recording reports, from memory, whether the ledger can be written.
	Recording func() bool
	Engines   *fleet.Fleet
	// Aliases are the names of the configuration; nil: none.
	Aliases *alias.Table
	Metrics http.Handler
	Hosts   []Host
	// LogDir is cleaned and counted here when no launcher answers.
	LogDir string
	Log    hclog.Logger
}

// serve answers a request whose caller is known; unknown routes and wrong methods are
// OpenAI-shaped errors like everything else.
func (a *API) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && strings.HasPrefix(r.URL.EscapedPath(), route.Models+"/") {
		a.model(w, r) // a mux would clean the path, and with it the id
		return
	}
	h, pattern := a.mux.Handler(r)
	if pattern != "" {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		a.mux.ServeHTTP(w, r)
		return
	}
	probe := &statusProbe{header: w.Header()}
	h.ServeHTTP(probe, r)
	if probe.status == http.StatusMethodNotAllowed {
		fail(w, http.StatusMethodNotAllowed, "method_not_allowed", "", "Method not allowed on this path; see the allow header.")
		return
	}
	unknown(w, r)
}

func unknown(w http.ResponseWriter, _ *http.Request) {
	fail(w, http.StatusNotFound, "not_found", "", "Unknown path. See docs/admin-api.md for the routes under /admin.")
}

// maxBody bounds the body of an administrator's request, in bytes.
const maxBody = 1 << 20

// statusProbe records the error status that the mux would give; our own text replaces
// its text.
type statusProbe struct {
	header http.Header
	status int
}

func (p *statusProbe) Header() http.Header         { return p.header }
func (p *statusProbe) Write(b []byte) (int, error) { return len(b), nil }
func (p *statusProbe) WriteHeader(code int)        { p.status = code }

// Healthz answers 200 while the process can serve. It is for the scrape port, which
// asks for no key.
func Healthz(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// Health is the answer of /health.
type Health struct {
	Status     string         `json:"status"` // ok, degraded, unavailable
	VLLM       []engineHealth `json:"vllm"`
	DefaultKey *bool          `json:"default_key,omitempty"` // for insiders
}

type engineHealth struct {
	Target string `json:"target,omitempty"` // for insiders
	Ready  bool   `json:"ready"`
}

// health is degraded while something is wrong but requests pass, unavailable when none
// can: no engine, no ledger, no keys (docs/operations.md). It is answered from memory,
// so that asking costs and changes nothing. Only insiders (an administrator's key, or a
// client on this machine) see the addresses of engines and the state of the default
// key.
func (a *API) health(w http.ResponseWriter, r *http.Request) {
	ring := a.o.Keys.Current()
	insider := callerOf(r).insider
	h := Health{Status: "ok", VLLM: []engineHealth{}}
	if insider {
		byDefault := ring.HasDefault()
		h.DefaultKey = &byDefault
	}
	ready := 0
	for _, s := range a.o.Engines.States() {
		e := engineHealth{Ready: s.Ready}
		if insider {
			e.Target = s.Target
		}
		h.VLLM = append(h.VLLM, e)
		if s.Ready {
			ready++
		}
	}
	if ready < len(h.VLLM) || len(a.o.Engines.View().Lost()) > 0 || !a.o.Keys.LastReloadOK() || a.o.Gate.Pending() > 0 {
		h.Status = "degraded"
	}
	code := http.StatusOK
	if ready == 0 || ring.Len() == 0 || !a.o.Recording() {
		h.Status, code = "unavailable", http.StatusServiceUnavailable
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, code, h)
}

// requests lists the live requests of all replicas.
func (a *API) requests(w http.ResponseWriter, r *http.Request) {
	if a.o.Replicas == nil {
		writeJSON(w, http.StatusOK, map[string]any{"requests": a.live(r.Context())})
		return
	}
	a.poll(r.Context())
	live, missing := a.o.Replicas.Requests(r.Context())
	writeJSON(w, http.StatusOK, withMissing(map[string]any{"requests": live}, missing))
}

// pollWait is how long the meters inside Envoys get to say how far requests are; else
// it is what they said at most 250 ms ago.
const pollWait = 100 * time.Millisecond

func (a *API) poll(ctx context.Context) {
	if a.o.Poll != nil {
		ctx, cancel := context.WithTimeout(ctx, pollWait)
		defer cancel()
		a.o.Poll(ctx)
	}
}

// live are the live requests of this gateway, as they are now.
func (a *API) live(ctx context.Context) []admission.Running {
	a.poll(ctx)
	return a.o.Gate.Live()
}

// withMissing says how many replicas did not answer, where some did not.
func withMissing(answer map[string]any, missing int) map[string]any {
	if missing > 0 {
		answer["replicas_missing"] = missing
	}
	return answer
}

// cancel cuts a live request, which is settled with the tokens that it used.
func (a *API) cancel(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if !a.recorded(w, r, "request.cancel", id, nil) {
		return
	}
	n, missing := 0, 0
	if a.o.Replicas == nil {
		n = a.o.Gate.Cancel(id) //nolint:contextcheck // a stream is settled in its own time
	} else {
		n, missing = a.o.Replicas.Cancel(r.Context(), id)
	}
	switch {
	case n == 0 && missing > 0:
		fail(w, http.StatusServiceUnavailable, "replicas_missing", "id", fmt.Sprintf(
			"No live request of the replicas that answered has this id, but %d did not answer; try again.", missing))
		return
	case n == 0:
		fail(w, http.StatusNotFound, "not_found", "id", "No live request has this id; GET /admin/requests lists them.")
		return
	}
	a.o.Log.Info("request cancelled by an administrator", "request_id", id)
	writeJSON(w, http.StatusOK, withMissing(map[string]any{"request_id": id, "cancelled": n}, missing))
}

// keyLimits answers with the limits of a key and how much of each is used.
type keyLimits struct {
	KeyID  string     `json:"key_id"`
	User   string     `json:"user"`
	Now    limit.View `json:"now"`
	Limits limitsView `json:"limits"`
}

func (a *API) limits(w http.ResponseWriter, r *http.Request) {
	key, ok := a.o.Keys.Current().ByID(r.PathValue("id"))
	if !ok {
		noKey(w)
		return
	}
	own, err := a.state(r, key)
	if err != nil {
		a.broken(w, "cannot read limits", err)
		return
	}
	writeJSON(w, http.StatusOK, keyLimits{KeyID: key.ID, User: key.User, Now: own.Now, Limits: own.Effective})
}

// allLimits answers for every key, in the order of the key file.
func (a *API) allLimits(w http.ResponseWriter, r *http.Request) {
	all := []keyLimits{}
	for _, key := range a.o.Keys.Current().Keys() {
		own, err := a.state(r, key)
		if err != nil {
			a.broken(w, "cannot read limits", err)
			return
		}
		all = append(all, keyLimits{KeyID: key.ID, User: key.User, Now: own.Now, Limits: own.Effective})
	}
	writeJSON(w, http.StatusOK, map[string]any{"limits": all})
}

// shown is a limit as JSON: null = unlimited.
func shown(n int64) *int64 {
	if n == limit.Unlimited {
		return nil
	}
	return &n
}

func (a *API) usage(w http.ResponseWriter, r *http.Request) {
	groups, query, format, err := a.report(r)
	if err == nil {
		err = a.sayLag(w, r)
	}
	var bad *queryError
	switch {
	case errors.As(err, &bad):
		wrongQuery(w, err)
	case err != nil:
		a.broken(w, "cannot read the ledger", err)
	case format == ledger.CSV:
		// The same bytes as those of "tollgate usage --format csv".
		w.Header().Set("Content-Type", "text/csv; charset=utf-8")
		_ = ledger.WriteUsage(w, format, query, groups) // the client may have left
	default:
		writeJSON(w, http.StatusOK, groups)
	}
}

func (a *API) engine(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"engines": a.o.Engines.States()})
}

// broken answers 500 and logs the error. It is the one place where an unexpected error
// of this package ends.
func (a *API) broken(w http.ResponseWriter, what string, err error) {
	a.o.Log.Error(what, "error", err)
	w.Header().Set("Retry-After", "2")
	failAs(w, http.StatusServiceUnavailable, "server_error", "service_unavailable", "", "The gateway "+what+"; its log says why.")
}

func fail(w http.ResponseWriter, status int, code, param, message string) {
	failAs(w, status, "invalid_request_error", code, param, message)
}

func failAs(w http.ResponseWriter, status int, typ, code, param, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(openai.Body("", message, typ, param, code)) //nolint:gosec // JSON, and its strings are escaped
}
