package admin

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tollgate/internal/apikey"
	"tollgate/internal/limit"
)

func (a *API) reloadKeys(w http.ResponseWriter, r *http.Request) {
	force := false
	if v := r.URL.Query().Get("force"); v != "" {
		var err error
		if force, err = strconv.ParseBool(v); err != nil {
			fail(w, http.StatusBadRequest, "invalid_request", "force", "force is true or false.")
			return
		}
	}
	sum, err := a.o.Keys.Reload(force)
	switch {
	case errors.Is(err, apikey.ErrShrunk):
		fail(w, http.StatusConflict, "keys_shrunk", "", "The file drops more than half of its keys; nothing changed. POST /admin/reload-keys?force=true takes it.")
	case err != nil:
		// The error names file and line and never a key (apikey.FileError).
		fail(w, http.StatusUnprocessableEntity, "invalid_key_file", "", "The last good keys stay in use. "+err.Error())
	default:
		writeJSON(w, http.StatusOK, sum)
	}
}

func (a *API) listKeys(w http.ResponseWriter, _ *http.Request) {
	views := []apikey.Info{}
	for _, k := range a.o.Keys.Current().Keys() {
		views = append(views, k.Info())
	}
	writeJSON(w, http.StatusOK, map[string]any{"keys": views})
}

func (a *API) showKey(w http.ResponseWriter, r *http.Request) {
	if k, ok := a.o.Keys.Current().ByID(r.PathValue("id")); ok {
		writeJSON(w, http.StatusOK, k.Info())
		return
	}
	noKey(w)
}

// addKey answers with the secret, once.
func (a *API) addKey(w http.ResponseWriter, r *http.Request) {
	in, err := readKey(r.Body)
	if err == nil && in.patch.User == nil {
		err = errors.New("user is missing")
	}
	if err != nil {
		fail(w, http.StatusBadRequest, "invalid_request", "", "Key: "+err.Error()+".")
		return
	}
	var created apikey.Created
	err = a.o.Keys.Edit(func(f *apikey.File) (err error) {
		created, err = f.Add(in.spec())
		return err
	})
	if a.edited(w, err) {
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, http.StatusCreated, created)
	}
}

func (a *API) updateKey(w http.ResponseWriter, r *http.Request) {
	in, err := readKey(r.Body)
	if err == nil && in.id != "" {
		err = errors.New("an id never changes")
	}
	if err != nil {
		fail(w, http.StatusBadRequest, "invalid_request", "", "Key: "+err.Error()+".")
		return
	}
	id := r.PathValue("id")
	err = a.o.Keys.Edit(func(f *apikey.File) error {
		if in.drain && in.patch.Enabled != nil && !*in.patch.Enabled {
			if err := f.Drain(id); err != nil {
				return err
			}
			in.patch.Enabled = nil
		}
		in.keepLimits(f, id)
		return f.Update(id, in.patch)
	})
	if a.edited(w, err) {
		a.showKey(w, r)
	}
}

func (a *API) removeKey(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if a.edited(w, a.o.Keys.Edit(func(f *apikey.File) error { return f.Remove(id) })) {
		writeJSON(w, http.StatusOK, map[string]any{"id": id, "removed": true})
	}
}

// rotateGrace is how long the old secret works where nothing is said.
const rotateGrace = 24 * time.Hour

// rotateKey gives a key a new secret and keeps its identity.
func (a *API) rotateKey(w http.ResponseWriter, r *http.Request) {
	grace := rotateGrace
	if v := r.URL.Query().Get("grace"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d < 0 || d > apikey.MaxGrace {
			fail(w, http.StatusBadRequest, "invalid_request", "grace", "grace is a duration from 0s to 720h (30 days), as in ?grace=24h.")
			return
		}
		grace = d
	}
	id := r.PathValue("id")
	var secret string
	err := a.o.Keys.Edit(func(f *apikey.File) (err error) {
		secret, err = f.Rotate(id, grace)
		return err
	})
	if a.edited(w, err) {
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, http.StatusOK, apikey.Created{ID: id, Secret: secret})
	}
}

// edited answers an edit that failed; true when it did not.
func (a *API) edited(w http.ResponseWriter, err error) bool {
	switch {
	case err == nil:
		return true
	case errors.Is(err, apikey.ErrNoKey):
		noKey(w)
	case errors.Is(err, apikey.ErrExists):
		fail(w, http.StatusConflict, "already_exists", "id", "A key with this id exists already.")
	case errors.Is(err, apikey.ErrLastAdmin):
		fail(w, http.StatusConflict, "last_admin", "id", "This is the last key that opens /admin, and nothing was changed. Make another one first: POST /admin/keys with the user admin.")
	case errors.Is(err, apikey.ErrInvalid):
		fail(w, http.StatusBadRequest, "invalid_request", "", "Key: "+err.Error()+".")
	default:
		a.broken(w, "cannot edit the key file", err)
	}
	return false
}

func noKey(w http.ResponseWriter) {
	fail(w, http.StatusNotFound, "not_found", "id", "No key has this id; GET /admin/keys lists them.")
}

// keyInput is the body of POST and PATCH.
type keyInput struct {
	id    string
	drain bool
	patch apikey.Patch
	// noLimits: "limits" is null.
	noLimits bool
}

// keepLimits fills in the limits that the body does not name: a patch of one
// must not take another away. "limits": null takes all of them.
func (in *keyInput) keepLimits(f *apikey.File, id string) {
	to := in.patch.Limits
	if to == nil || in.noLimits {
		return
	}
	for _, k := range f.Keys() {
		if k.ID != id {
			continue
		}
		for _, l := range []struct{ to, from **int64 }{
			{&to.Concurrent, &k.Concurrent}, {&to.RequestsPerMinute, &k.RequestsPerMinute}, {&to.TokensPerMinute, &k.TokensPerMinute},
		} {
			if *l.to == nil {
				*l.to = *l.from
			}
		}
	}
}

func (in *keyInput) spec() apikey.Spec {
	p := in.patch
	s := apikey.Spec{ID: in.id, User: *p.User, Quota: p.Quota}
	if p.QuotaPeriod != nil {
		s.QuotaPeriod = *p.QuotaPeriod
	}
	if p.Enabled != nil {
		s.Disabled = !*p.Enabled
	}
	if p.Models != nil {
		s.Models = *p.Models
	}
	if p.Limits != nil {
		s.Limits = *p.Limits
	}
	if p.NotBefore != nil {
		s.NotBefore = *p.NotBefore
	}
	if p.ExpiresAt != nil {
		s.ExpiresAt = *p.ExpiresAt
	}
	if p.Note != nil {
		s.Note = *p.Note
	}
	return s
}

// readKey reads a strict JSON object: unknown and doubled fields are errors,
// null takes a bound away, what is absent stays as it is.
func readKey(body io.Reader) (*keyInput, error) {
	var fields map[string]jsontext.Value
	if err := json.UnmarshalRead(body, &fields); err != nil {
		return nil, errors.New("the body is not a JSON object")
	}
	in := &keyInput{}
	p := &in.patch
	for _, name := range slices.Sorted(maps.Keys(fields)) { // so that of two mistakes the same one is told
		raw := fields[name]
		var err error
		null := raw.Kind() == 'n'
		switch name {
		case "id":
			err = json.Unmarshal(raw, &in.id)
		case "drain":
			err = json.Unmarshal(raw, &in.drain)
		case "user":
			err = json.Unmarshal(raw, &p.User)
		case "quota":
			p.Quota, err = count(raw, null)
		case "quota_period":
			err = json.Unmarshal(raw, &p.QuotaPeriod)
		case "enabled":
			err = json.Unmarshal(raw, &p.Enabled)
		case "models":
			p.Models = new([]string)
			err = json.Unmarshal(raw, p.Models)
		case "limits":
			in.noLimits = null
			p.Limits, err = readLimits(raw, null)
		case "not_before":
			p.NotBefore = new(time.Time)
			err = orZero(raw, null, p.NotBefore)
		case "expires_at":
			p.ExpiresAt = new(time.Time)
			err = orZero(raw, null, p.ExpiresAt)
		case "note":
			err = json.Unmarshal(raw, &p.Note)
		default:
			return nil, fmt.Errorf("unknown field %q", name)
		}
		if err != nil {
			return nil, wrongField(name, err)
		}
	}
	return in, nil
}

// wrongField says what is wrong with a field, never in the words of a parser,
// which may quote the value.
func wrongField(name string, err error) error {
	if errors.Is(err, errCount) || errors.Is(err, errUnknownLimit) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return fmt.Errorf("%s has the wrong type or form", name)
}

// errCount is a limit or quota that is no number of things. Below 0 there is
// nothing to mean: what lifts a limit is null.
var errCount = errors.New("want a whole number from 0, or null for no limit")

var errUnknownLimit = errors.New("unknown limit")

func count(raw jsontext.Value, null bool) (*int64, error) {
	n := limit.Unlimited
	if null {
		return &n, nil
	}
	if err := json.Unmarshal(raw, &n); err != nil || n < 0 {
		return nil, errCount
	}
	return &n, nil
}

func orZero(raw jsontext.Value, null bool, to *time.Time) error {
	if null {
		return nil
	}
	return json.Unmarshal(raw, to)
}

func readLimits(raw jsontext.Value, null bool) (*apikey.Limits, error) {
	l := &apikey.Limits{}
	if null {
		return l, nil
	}
	var fields map[string]jsontext.Value
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		v := fields[name]
		n, err := count(v, v.Kind() == 'n')
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		switch name {
		case "concurrent":
			l.Concurrent = n
		case "requests_per_minute":
			l.RequestsPerMinute = n
		case "tokens_per_minute":
			l.TokensPerMinute = n
		default:
			return nil, fmt.Errorf("%w %q; known: concurrent, requests_per_minute, tokens_per_minute", errUnknownLimit, name)
		}
	}
	return l, nil
}
