package admin

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"tollgate/internal/admission"
	"tollgate/internal/apikey"
	"tollgate/internal/audit"
	"tollgate/internal/route"
)

// caller is who asks.
type caller struct {
	key *apikey.Key // nil where none is needed: on open pages, and for commands of this host
	// insider: an administrator, or somebody on this machine, who sees all of /health.
	insider bool
	by      audit.Editor
}

type callerKey struct{}

// callerOf returns who asks; the zero value, which may nothing, where nobody was
// authenticated.
func callerOf(r *http.Request) caller {
	c, _ := r.Context().Value(callerKey{}).(caller)
	return c
}

// editor returns who asks for a change, for the audit.
func editor(r *http.Request) audit.Editor { return callerOf(r).by }

func (a *API) serveAs(c caller, w http.ResponseWriter, r *http.Request) {
	a.serve(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
}

// Edge serves the API to requests that come by way of an Envoy. Each is authenticated
// here by the key that its client sent, whatever the Envoy has checked: who may connect
// is not yet who may ask.
//
// local says that the Envoy is on this host. Only then its word is taken that a client
// is on this machine too, which the public default key needs.
func (a *API) Edge(local bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if reason := r.Header.Get(route.RefusalHeader); reason != "" {
			a.handed(w, r, reason)
			return
		}
		at, ok := route.Find(r.Method, r.URL.EscapedPath())
		if !ok || !at.Page {
			a.serve(w, r) // which finds no page
			return
		}
		here := local && r.Header.Get(route.LocalHeader) == "yes"
		c, err := a.authenticate(r, at.Class, here)
		var denied *admission.DenialError
		switch {
		case errors.As(err, &denied):
			refuse(w, r, denied)
		case err != nil:
			a.broken(w, "cannot authenticate", err)
		default:
			a.serveAs(c, w, r)
		}
	})
}

// authenticate finds the key of a request and whether it may use such a route. here:
// the client is on this machine.
func (a *API) authenticate(r *http.Request, class admission.Class, here bool) (caller, error) {
	arrival := admission.Arrival{
		Class: class, Authorization: r.Header.Values("Authorization"), APIKey: r.Header.Values("X-Api-Key"), Local: here,
	}
	if class == admission.Open {
		// No key is needed there, so a bad one is only no reason to tell more.
		arrival.Class = admission.Admin
		_, err := a.o.Gate.Authorize(arrival)
		return caller{insider: here || err == nil}, nil
	}
	key, err := a.o.Gate.Authorize(arrival)
	if err != nil {
		return caller{}, err
	}
	return caller{key: key, insider: key.Admin(), by: audit.Editor{Who: key.ID, From: r.Header.Get(route.ClientHeader)}}, nil
}

// UserHeader is the name of the person at a command of this host, as the command
// gives it. Only the socket of [API.Local] hears it.
const UserHeader = "x-tollgate-user"

// Local serves the API to commands on this host. People who reach the socket may do
// everything, as they may edit the files; they have no key, so the pages on which a key
// sees itself are not there.
func (a *API) Local() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.Header.Get(UserHeader)
		if name == "" || len(name) > 64 || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' }) {
			name = "unknown"
		}
		for _, h := range slices.Concat(route.Said(), []string{"Authorization", "X-Api-Key"}) {
			r.Header.Del(h)
		}
		a.serveAs(caller{insider: true, by: audit.Editor{Who: "local:" + name, From: "local"}}, w, r)
	})
}
