package admin

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"tollgate/internal/apikey"
)

func (a *API) reloadKeys(w http.ResponseWriter, r *http.Request) {
	q, force := r.URL.Query(), false
	err := onlyKnown(q, "force")
	if err == nil && q.Has("force") {
		if force, err = strconv.ParseBool(q.Get("force")); err != nil {
			err = &queryError{"force", "force is true or false"}
		}
	}
	if err != nil {
		wrongQuery(w, err)
		return
	}
	sum, err := a.o.Keys.Reload(force)
	switch {
	case errors.Is(err, apikey.ErrAway):
		a.broken(w, "cannot reach the keys; those that it knows go on to work", err)
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
	fields, ok := readFields(w, r)
	if !ok {
		return
	}
	if user := fields["user"]; user == nil || user.Kind() == 'n' {
		fail(w, http.StatusBadRequest, "invalid_request", "user", "Key: user is missing.")
		return
	}
	var created apikey.Created
	err := a.o.Keys.Edit(editor(r), func(f *apikey.File) (err error) {
		created, err = f.Add(fields)
		return err
	})
	if a.edited(w, err) {
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, http.StatusCreated, created)
	}
}

func (a *API) updateKey(w http.ResponseWriter, r *http.Request) {
	fields, ok := readFields(w, r)
	if !ok {
		return
	}
	err := a.o.Keys.Edit(editor(r), func(f *apikey.File) error { return f.Update(r.PathValue("id"), fields) })
	if a.edited(w, err) {
		a.showKey(w, r)
	}
}

func (a *API) removeKey(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if a.edited(w, a.o.Keys.Edit(editor(r), func(f *apikey.File) error { return f.Remove(id) })) {
		writeJSON(w, http.StatusOK, map[string]any{"id": id, "removed": true})
	}
}

// rotateGrace is how long the old secret works by default.
const rotateGrace = 24 * time.Hour

// rotateKey gives a key a new secret and keeps its identity.
func (a *API) rotateKey(w http.ResponseWriter, r *http.Request) {
	q, grace := r.URL.Query(), rotateGrace
	err := onlyKnown(q, "grace")
	if err == nil && q.Get("grace") != "" {
		if grace, err = time.ParseDuration(q.Get("grace")); err != nil || grace < 0 || grace > apikey.MaxGrace {
			err = &queryError{"grace", "grace is a duration from 0s to 720h (30 days), as in ?grace=24h"}
		}
	}
	if err != nil {
		wrongQuery(w, err)
		return
	}
	id := r.PathValue("id")
	var secret string
	err = a.o.Keys.Edit(editor(r), func(f *apikey.File) (err error) {
		secret, err = f.Rotate(id, grace)
		return err
	})
	if a.edited(w, err) {
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, http.StatusOK, apikey.Created{ID: id, Secret: secret})
	}
}

// edited answers where an edit failed; it returns true where it succeeded.
func (a *API) edited(w http.ResponseWriter, err error) bool {
	var invalid *apikey.InvalidError
	switch {
	case err == nil:
		return true
	case errors.Is(err, apikey.ErrNoKey):
		noKey(w)
	case errors.Is(err, apikey.ErrExists):
		fail(w, http.StatusConflict, "already_exists", "id", "A key with this id exists already.")
	case errors.Is(err, apikey.ErrLastAdmin):
		fail(w, http.StatusConflict, "last_admin", "id", "This is the last key that opens /admin, and nothing was changed. Make another one first: POST /admin/keys with the user admin.")
	case errors.Is(err, apikey.ErrAway):
		a.broken(w, "cannot reach the keys, and nothing was changed; those that it knows go on to work", err)
	case errors.As(err, &invalid):
		fail(w, http.StatusBadRequest, "invalid_request", invalid.Field, "Key: "+invalid.Error()+".")
	default:
		a.broken(w, "cannot edit the key file", err)
	}
	return false
}

func noKey(w http.ResponseWriter) {
	fail(w, http.StatusNotFound, "not_found", "id", "No key has this id; GET /admin/keys lists them.")
}

// readFields reads the body of POST and PATCH: a strict JSON object with fields of
// the key file. It answers by itself when there is none.
func readFields(w http.ResponseWriter, r *http.Request) (apikey.Fields, bool) {
	var fields apikey.Fields
	if err := json.UnmarshalRead(r.Body, &fields); err != nil || fields == nil {
		fail(w, http.StatusBadRequest, "invalid_request", "", "Key: the body is not a JSON object.")
		return nil, false
	}
	return fields, true
}
