package admin

import (
	"context"
	"net/http"
	"strings"

	"tollgate/internal/audit"
	"tollgate/internal/route"
)

// UserHeader is the name of the person at a command of this host, as the command
// gives it. Only the socket of [Local] hears it.
const UserHeader = "x-tollgate-user"

// localKey marks requests of commands on this host.
type localKey struct{}

// Local serves the API to commands on this host. People who reach the socket may do
// everything, as they may edit the files. Headers that only a check may set are
// removed.
func Local(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.Header.Get(UserHeader)
		if name == "" || len(name) > 64 || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' }) {
			name = "unknown"
		}
		for _, h := range []string{route.KeyHeader, route.ClientHeader, route.RefusalHeader, route.WaitHeader} {
			r.Header.Del(h)
		}
		r.Header.Set(route.InsiderHeader, "yes")
		by := audit.Editor{Who: "local:" + name, From: "local"}
		api.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), localKey{}, by)))
	})
}

// editor returns who asks for a change, for the audit.
func editor(r *http.Request) audit.Editor {
	if by, ok := r.Context().Value(localKey{}).(audit.Editor); ok {
		return by
	}
	return audit.Editor{Who: r.Header.Get(route.KeyHeader), From: r.Header.Get(route.ClientHeader)}
}
