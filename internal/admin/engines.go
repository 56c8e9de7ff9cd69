package admin

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tollgate/internal/fleet"
	"tollgate/internal/route"
	"tollgate/internal/whole"
)

// engineInfo is one engine as administrators see it.
type engineInfo struct {
	Address  string       `json:"address"`
	Endpoint string       `json:"endpoint"` // the address that requests go to; "" while the name leads nowhere
	Weight   int          `json:"weight"`
	Origin   fleet.Origin `json:"origin"`
	By       string       `json:"by,omitempty"`    // id of the key that named it
	Since    *time.Time   `json:"since,omitempty"` // when it was named at run time
	Line     int          `json:"line,omitempty"`  // of the configuration file
	State    string       `json:"state"`           // ready, draining, not_ready
	Error    string       `json:"error,omitempty"` // why it is not ready
	Models   []string     `json:"models"`          // as it listed them last
	Waiting  int64        `json:"waiting"`         // sequences, as it says itself
	Running  int64        `json:"running"`
}

// engineList is the answer of GET /admin/engines.
type engineList struct {
	Engines []engineInfo `json:"engines"`
	// Lost are models that an engine listed and none can serve now.
	Lost     []string `json:"lost"`
	Warnings []string `json:"warnings"`
}

func (a *API) listEngines(w http.ResponseWriter, r *http.Request) {
	if launcher(r) {
		fail(w, http.StatusForbidden, "not_admin", "", "A launcher's key may only name its own engine and take it out.")
		return
	}
	v := a.o.Engines.View()
	out := engineList{Engines: []engineInfo{}, Lost: append([]string{}, v.Lost()...), Warnings: append([]string{}, v.Warnings()...)}
	for _, e := range v.Engines() {
		out.Engines = append(out.Engines, infoOf(e))
	}
	writeJSON(w, http.StatusOK, out)
}

func infoOf(e *fleet.Engine) engineInfo {
	info := engineInfo{
		Address: e.Address, Endpoint: e.Endpoint, Weight: e.Weight, Origin: e.Named.Origin, By: e.Named.By, Line: e.Named.Line,
		State: "not_ready", Error: e.Error, Models: []string{}, Waiting: e.Waiting(), Running: e.Running(),
	}
	if !e.Named.Since.IsZero() {
		info.Since = &e.Named.Since
	}
	switch {
	case e.Draining:
		info.State = "draining"
	case e.Ready:
		info.State = "ready"
	}
	for _, m := range e.Models {
		info.Models = append(info.Models, m.ID)
	}
	return info
}

// launcher reports whether the request came with a launcher's key.
func launcher(r *http.Request) bool {
	key := callerOf(r).key
	return key != nil && key.Launcher()
}

func (a *API) addEngine(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Address string         `json:"address"`
		Weight  jsontext.Value `json:"weight"`
	}
	weight, isWhole := int64(1), true
	err := json.UnmarshalRead(r.Body, &asked, json.RejectUnknownMembers(true))
	if asked.Weight != nil {
		isWhole = asked.Weight.Kind() == '0'
		if isWhole {
			weight, isWhole = whole.Number(asked.Weight)
		}
	}
	if err != nil || asked.Address == "" || !isWhole {
		fail(w, http.StatusBadRequest, "invalid_request", "address", `The body is JSON with an address, and a weight where it is not 1: {"address": "10.0.0.2:8000"}.`)
		return
	}
	e := fleet.Entry{Address: asked.Address, Weight: int(weight), Origin: fleet.FromAPI, By: editor(r).Who}
	if launcher(r) {
		e.Origin = fleet.FromLauncher
		if !a.ownHost(w, r, e.Address) {
			return
		}
	}
	known, err := a.o.Engines.Check(e)
	if err != nil {
		a.refuseEngine(w, err)
		return
	}
	// A launcher says every few seconds that it is there, which is no change.
	if !known && !a.recorded(w, r, "engine.add", e.Address, map[string]any{"weight": e.Weight, "origin": e.Origin}) {
		return
	}
	created, err := a.o.Engines.Put(e) //nolint:contextcheck // an engine is watched longer than the request lasts
	if err != nil {
		a.refuseEngine(w, err)
		return
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	writeJSON(w, status, map[string]any{"address": e.Address, "weight": e.Weight})
}

// ownHost answers a launcher that names an engine of another host: who names an engine
// receives the prompts of everybody.
func (a *API) ownHost(w http.ResponseWriter, r *http.Request, address string) bool {
	host, _, err := net.SplitHostPort(address)
	client := net.ParseIP(r.Header.Get(route.ClientHeader))
	if named := net.ParseIP(host); err == nil && named != nil && client != nil && named.Equal(client) {
		return true
	}
	fail(w, http.StatusForbidden, "not_your_engine", "address",
		"A launcher names the engine of its own host, by the address that it asks from; an administrator can add others: tollgate engines add ADDRESS.")
	return false
}

func (a *API) removeEngine(w http.ResponseWriter, r *http.Request) {
	address, by := r.PathValue("address"), ""
	if launcher(r) {
		by = editor(r).Who
	}
	if err := a.o.Engines.Removable(address, by); err != nil {
		a.refuseEngine(w, err)
		return
	}
	if !a.recorded(w, r, "engine.remove", address, nil) {
		return
	}
	if err := a.o.Engines.Remove(address, by); err != nil {
		a.refuseEngine(w, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"address": address, "draining": true})
}

// refuseEngine answers a change of engines that failed.
func (a *API) refuseEngine(w http.ResponseWriter, err error) {
	var file *fleet.FileError
	var bad *fleet.InvalidError
	switch {
	case errors.As(err, &bad):
		fail(w, http.StatusBadRequest, "invalid_request", bad.Field, sentence(bad.Error()))
	case errors.As(err, &file):
		fail(w, http.StatusConflict, "in_file", "address", sentence(file.Error()))
	case errors.Is(err, fleet.ErrUnknown):
		fail(w, http.StatusNotFound, "not_found", "address", "No engine has this address; GET /admin/engines lists them.")
	case errors.Is(err, fleet.ErrNotYours):
		fail(w, http.StatusForbidden, "not_your_engine", "address", sentence(err.Error()))
	case errors.Is(err, fleet.ErrFull):
		fail(w, http.StatusConflict, "too_many_engines", "", sentence(err.Error()))
	default:
		a.broken(w, "cannot change the engines", err)
	}
}

// sentence is an error's text as a sentence.
func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." }
