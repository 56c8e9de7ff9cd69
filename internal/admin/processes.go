package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"tollgate/internal/ledger"
	"tollgate/internal/logfile"
)

// hostChildren is what one launcher says of its processes.
type hostChildren struct {
	Host     string          `json:"host"`
	OK       bool            `json:"ok"`
	Message  string          `json:"message"`
	Children json.RawMessage `json:"children"`
}

// children asks every launcher for its processes: their states, restarts and last
// exits. A launcher that does not answer is told as such; the others' are there.
func (a *API) children(w http.ResponseWriter, r *http.Request) {
	if err := onlyKnown(r.URL.Query()); err != nil {
		wrongQuery(w, err)
		return
	}
	hosts := make([]hostChildren, len(a.o.Hosts))
	var wg sync.WaitGroup
	for i, h := range a.o.Hosts {
		wg.Go(func() { //nolint:contextcheck // it asks with the context of the request
			hosts[i] = hostChildren{Host: h.Name(), Message: "the launcher does not answer", Children: json.RawMessage("[]")}
			status, body, err := h.Call(r.Context(), http.MethodGet, "/state", nil)
			var state struct {
				Children json.RawMessage `json:"children"`
			}
			if err == nil && status == http.StatusOK && json.Unmarshal(body, &state) == nil && state.Children != nil {
				hosts[i] = hostChildren{Host: h.Name(), OK: true, Children: state.Children}
			}
		})
	}
	wg.Wait()
	writeJSON(w, http.StatusOK, map[string]any{"hosts": hosts})
}

// host is the launcher that the query names, the first where it names none. It
// answers where there is none.
func (a *API) host(w http.ResponseWriter, name string) (Host, bool) {
	for _, h := range a.o.Hosts {
		if name == "" || h.Name() == name {
			return h, true
		}
	}
	if name == "" {
		fail(w, http.StatusConflict, "no_launcher", "host", "No launcher is configured; this needs one.")
		return nil, false
	}
	fail(w, http.StatusNotFound, "not_found", "host", "No launcher has this name; GET /admin/children lists them.")
	return nil, false
}

// restartChild has a launcher restart one of its processes.
func (a *API) restartChild(w http.ResponseWriter, r *http.Request) {
	if err := onlyKnown(r.URL.Query(), "host"); err != nil {
		wrongQuery(w, err)
		return
	}
	h, ok := a.host(w, r.URL.Query().Get("host"))
	if !ok {
		return
	}
	child := r.PathValue("name")
	if !a.recorded(w, r, "child.restart", child, map[string]any{"host": h.Name()}) {
		return
	}
	status, answer, err := h.Call(r.Context(), http.MethodPost, "/restart?"+url.Values{"child": {child}}.Encode(), nil)
	a.passOn(w, status, answer, err)
}

// passOn answers with what a launcher said.
func (a *API) passOn(w http.ResponseWriter, status int, answer []byte, err error) {
	switch {
	case err != nil:
		a.broken(w, "cannot reach the launcher", err)
	case status >= http.StatusBadRequest:
		code := map[int]string{http.StatusNotFound: "not_found", http.StatusBadRequest: "invalid_request"}[status]
		if code == "" {
			code = "launcher_failed"
		}
		fail(w, status, code, "", said(answer))
	default:
		writeBytes(w, status, answer)
	}
}

// logLines is how many lines of a log are shown where nothing is said.
const logLines = 200

// log answers with the last lines of a log. Those of this host are read here where
// its launcher does not answer.
func (a *API) log(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	lines := logLines
	err := onlyKnown(q, "lines", "host")
	if err == nil && q.Has("lines") {
		if lines, err = strconv.Atoi(q.Get("lines")); err != nil || lines < 1 || lines > logfile.MaxTail {
			err = &queryError{"lines", "lines is a whole number from 1 to " + strconv.Itoa(logfile.MaxTail)}
		}
	}
	if err != nil {
		wrongQuery(w, err)
		return
	}
	name := r.PathValue("name")
	if host := q.Get("host"); host != "" && host != localHost {
		h, ok := a.host(w, host)
		if !ok {
			return
		}
		status, answer, err := h.Call(r.Context(), http.MethodGet, "/log?"+url.Values{"name": {name}, "lines": {strconv.Itoa(lines)}}.Encode(), nil)
		a.passOn(w, status, answer, err)
		return
	}
	tail, err := logfile.Tail(a.o.LogDir, name, lines)
	switch {
	case errors.Is(err, logfile.ErrNoLog):
		fail(w, http.StatusNotFound, "not_found", "name", "The log folder has no log of this name; GET /admin/log-stats lists them.")
	case err != nil:
		a.broken(w, "cannot read the log", err)
	default:
		writeJSON(w, http.StatusOK, map[string]any{"log": name, "lines": tail})
	}
}

// verifyLedger checks the ledger's invariants, as "tollgate ledger verify" does.
func (a *API) verifyLedger(w http.ResponseWriter, r *http.Request) {
	found, err := a.o.Ledger.Verify(r.Context())
	if err != nil {
		a.broken(w, "cannot check the ledger", err)
		return
	}
	type violation struct {
		LeaseID string `json:"lease_id"`
		Rule    string `json:"rule"`
		Detail  string `json:"detail"`
	}
	shown := []violation{}
	for _, v := range found[:min(len(found), ledger.MaxPage)] {
		shown = append(shown, violation{v.LeaseID, string(v.Rule), v.Detail})
	}
	writeJSON(w, http.StatusOK, map[string]any{"ok": len(found) == 0, "broken": len(found), "violations": shown})
}
