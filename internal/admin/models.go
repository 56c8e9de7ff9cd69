package admin

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"tollgate/internal/admission"
	"tollgate/internal/alias"
	"tollgate/internal/apikey"
	"tollgate/internal/openai"
	"tollgate/internal/route"
)

// root leads browsers to the console, and tells everybody else what answers here.
func root(w http.ResponseWriter, r *http.Request) {
	w.Header().Add("Vary", "Accept")
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		http.Redirect(w, r, route.Console, http.StatusFound)
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"service": "tollgate"})
}

// offer are the models that a key may ask for by their names: those of the engines
// and those that the configuration names.
type offer struct {
	api    *API
	key    *apikey.Key
	listed map[string]openai.Model // of the engines
	models []openai.Model          // what the key may use
}

func (o *offer) serves(name string) bool {
	_, ok := o.listed[name]
	return ok
}

// offer is that of the key of the request; false where it has none.
func (a *API) offer(r *http.Request) (*offer, bool) {
	key := callerOf(r).key
	if key == nil {
		return nil, false
	}
	models := a.o.Engines.Models()
	o := &offer{api: a, key: key, listed: make(map[string]openai.Model, len(models))}
	names := make([]string, len(models))
	for i, m := range models {
		names[i], o.listed[m.ID] = m.ID, m
	}
	for _, name := range a.o.Aliases.Offer(names, key.Models, key) {
		o.models = append(o.models, o.named(name))
	}
	return o, true
}

// named returns the model of a name that an engine lists or that is an alias.
func (o *offer) named(name string) openai.Model {
	a, ok := o.api.o.Aliases.Find(name, o.serves)
	if !ok {
		return o.listed[name]
	}
	var behind []openai.Model
	for _, target := range a.Targets {
		if m, ok := o.listed[target.Model]; ok {
			behind = append(behind, m)
		}
	}
	return openai.AliasModel(name, behind)
}

// find is the model that a request for a name would get; false where the key may
// not use it.
func (o *offer) find(name string) (openai.Model, bool) {
	if i := slices.IndexFunc(o.models, func(m openai.Model) bool { return m.ID == name }); i >= 0 {
		return o.models[i], true
	}
	if _, ok := o.api.o.Aliases.Find(name, o.serves); !ok || !o.api.o.Aliases.Allowed(name, o.key, o.serves) {
		return openai.Model{}, false
	}
	return o.named(name), true
}

// unknown refuses a name.
func (o *offer) unknown(name string) *admission.DenialError {
	names := make([]string, len(o.models))
	for i, m := range o.models {
		names[i] = m.ID
	}
	d := admission.Deny(admission.ModelUnknown)
	d.Param, d.Model, d.Nearest = "model", name, alias.Nearest(name, names)
	return d
}

// anthropic reports a client that expects Anthropic's shapes.
func anthropic(r *http.Request) bool { return r.Header.Get("Anthropic-Version") != "" }

// shape is the endpoint in whose shape the client reads errors.
func shape(r *http.Request) openai.Endpoint {
	if anthropic(r) || strings.HasPrefix(r.URL.Path, string(openai.Messages)) {
		return openai.Messages
	}
	return ""
}

// models answers /v1/models.
func (a *API) models(w http.ResponseWriter, r *http.Request) {
	o, ok := a.offer(r)
	switch {
	case !ok:
		refuse(w, r, admission.Deny(admission.InvalidKey))
	case anthropic(r):
		page, more := pageOf(o.models, r.URL.Query())
		writeBytes(w, http.StatusOK, openai.AnthropicModelList(page, more))
	default:
		writeBytes(w, http.StatusOK, openai.ModelList(o.models))
	}
}

// pageOf is the part of the list that limit, after_id and before_id ask for, as
// Anthropic's API has them. Without a limit it is the whole list.
func pageOf(models []openai.Model, q url.Values) (page []openai.Model, more bool) {
	at := func(id string) int { return slices.IndexFunc(models, func(m openai.Model) bool { return m.ID == id }) }
	limit, err := strconv.Atoi(q.Get("limit"))
	if err != nil || limit < 1 || limit > len(models) {
		limit = len(models)
	}
	if before := at(q.Get("before_id")); before >= 0 {
		start := max(0, before-limit)
		return models[start:before], start > 0
	}
	start := at(q.Get("after_id")) + 1
	end := min(len(models), start+limit)
	return models[start:end], end < len(models)
}

// model answers /v1/models/{id}. The id is all that follows, with its slashes
// escaped or not.
func (a *API) model(w http.ResponseWriter, r *http.Request) {
	o, ok := a.offer(r)
	if !ok {
		refuse(w, r, admission.Deny(admission.InvalidKey))
		return
	}
	id, err := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), route.Models+"/"))
	m, ok := o.find(id)
	switch {
	case err != nil || !ok:
		refuse(w, r, o.unknown(id))
	case anthropic(r):
		writeBytes(w, http.StatusOK, openai.AnthropicModel(m))
	default:
		writeBytes(w, http.StatusOK, m.Card)
	}
}

// handed sends a refusal that the check has handed over, because Envoy would have sent
// it with another status.
func (a *API) handed(w http.ResponseWriter, r *http.Request, reason string) {
	// Or the answer would wait for a body that is not read, until its client has sent all of it.
	w.Header().Set("Connection", "close")
	d := admission.Deny(admission.Reason(reason))
	if d.Reason == admission.UnsupportedMedia {
		d.Message = "gRPC is not spoken here; send JSON with 'content-type: application/json'."
	}
	if d.Reason == admission.WrongMethod {
		if d.Allow = a.allow(r); d.Allow == "" {
			d = admission.Deny(admission.NotFound)
		}
	}
	if wait, err := strconv.ParseInt(r.Header.Get(route.WaitHeader), 10, 64); err == nil {
		d.RetryAfter = time.Duration(wait) * time.Millisecond
	}
	refuse(w, r, d)
}

// allow is the value of the allow header for the path of r; "" where there is no such
// path.
func (a *API) allow(r *http.Request) string {
	probe := &statusProbe{header: http.Header{}}
	h, _ := a.mux.Handler(r)
	h.ServeHTTP(probe, r)
	if probe.status != http.StatusMethodNotAllowed {
		return ""
	}
	methods := strings.Split(probe.header.Get("Allow"), ", ")
	methods = slices.DeleteFunc(methods, func(m string) bool { return m == http.MethodHead }) // of a GET, which the mux adds
	return strings.Join(append(methods, http.MethodOptions), ", ")
}

func refuse(w http.ResponseWriter, r *http.Request, d *admission.DenialError) {
	status, headers, body := openai.Answer(shape(r), d)
	for _, h := range headers {
		w.Header().Set(h.Name, h.Value)
	}
	writeBytes(w, status, body)
}

func writeBytes(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) //nolint:gosec // JSON, and its strings are escaped; a client that has gone needs no answer
}
