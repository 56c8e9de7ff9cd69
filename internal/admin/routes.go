package admin

import (
	"maps"
	"net/http"
	"slices"

	"tollgate/internal/console"
	"tollgate/internal/route"
)

// API serves the routes, by [API.Edge] and [API.Local].
type API struct {
	o   Options
	mux *http.ServeMux
}

// New returns the API.
func New(o Options) *API {
	a := &API{o: o, mux: http.NewServeMux()}
	for pattern, h := range a.pages() {
		a.mux.Handle(pattern, h)
	}
	for pattern, h := range a.documented() {
		a.mux.Handle(pattern, h)
	}
	return a
}

// Operations lists the operations that the OpenAPI document describes, as
// "GET /admin/keys", sorted.
func Operations() []string {
	a := &API{o: Options{Metrics: http.NotFoundHandler()}}
	return slices.Sorted(maps.Keys(a.documented()))
}

// pages are for browsers and for the clients of OpenAI and Anthropic. One model is no
// pattern of the mux, see [API.ServeHTTP].
func (a *API) pages() map[string]http.Handler {
	return map[string]http.Handler{
		"GET /{$}":             http.HandlerFunc(root), // GET serves HEAD too
		"GET " + route.Console: console.Handler(route.Console, http.HandlerFunc(unknown)),
		"GET /v1/models":       http.HandlerFunc(a.models),
		"GET /models":          http.HandlerFunc(a.models),
	}
}

// documented are the operations of openapi.yaml, each of them.
func (a *API) documented() map[string]http.Handler {
	all := map[string]http.HandlerFunc{
		"GET /health":             a.health,
		"GET /metrics":            a.o.Metrics.ServeHTTP,
		"GET /admin/openapi.json": a.document,

		// A key sees itself, and nobody else: the key is the one that came with the
		// request, never one that the query names.
		"GET " + route.OwnKey:      a.own(a.ownKey),
		"GET " + route.OwnUsage:    a.own(a.ownUsage),
		"GET " + route.OwnRequests: a.own(a.ownRequests),

		"POST /admin/reload-keys":      a.reloadKeys,
		"GET /admin/keys":              a.listKeys,
		"POST /admin/keys":             a.addKey,
		"GET /admin/keys/{id}":         a.showKey,
		"PATCH /admin/keys/{id}":       a.updateKey,
		"DELETE /admin/keys/{id}":      a.removeKey,
		"POST /admin/keys/{id}/rotate": a.rotateKey,
		"GET /admin/limits":            a.allLimits,
		"GET /admin/limits/{id}":       a.limits,

		"GET /admin/requests":         a.requests,
		"DELETE /admin/requests/{id}": a.cancel,
		"GET /admin/usage":            a.usage,
		"GET /admin/ledger":           a.rows,
		"GET /admin/ledger/verify":    a.verifyLedger,
		"GET /admin/audit":            a.audit,
		"GET /admin/audit/verify":     a.verifyAudit,

		"GET /admin/engine":                   a.engine,
		"GET /admin/engines":                  a.listEngines,
		"POST /admin/engines":                 a.addEngine,
		"DELETE /admin/engines/{address}":     a.removeEngine,
		"POST /admin/load-lora-adapter":       a.lora(loadAdapter),
		"POST /admin/unload-lora-adapter":     a.lora(unloadAdapter),
		"GET /admin/children":                 a.children,
		"POST /admin/children/{name}/restart": a.restartChild,
		"GET /admin/logs/{name}":              a.log,
		"GET /admin/log-stats":                a.logStats,
		"POST /admin/clean-logs":              a.cleanLogs,
	}
	out := make(map[string]http.Handler, len(all))
	for pattern, h := range all {
		out[pattern] = h
	}
	return out
}
