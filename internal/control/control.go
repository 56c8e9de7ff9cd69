// Package control is the launcher's own HTTP API: the state of the children,
// the log files, and the adapters of the engine. tollgate's admin API calls it.
//
// Every user who can open the Unix socket can use it. Over TCP every call needs the
// bearer token. Answers are JSON; an error is {"error":{"message":…}}.
package control

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/logfile"
	"tollgate/internal/supervisor"
	"tollgate/internal/vllm"
)

const (
	maxBody     = 64 << 10
	stopTimeout = 2 * time.Second
)

// ErrNoChild means that no child has that name.
var ErrNoChild = errors.New("no such child")

// Options of the API.
type Options struct {
	LogDir string
	// Token is the bearer that every call must carry; empty: none is needed,
	// which is for a Unix socket only.
	Token string
	// Children are the states, in the order of their start.
	Children func() []supervisor.Status
	// Restart asks for a restart of a child; it fails with [ErrNoChild].
	Restart func(child string) error
	// Upgrade replaces tollgate by another program, "" for the one that lies where the
	// running one lay; nil where none runs here. It returns when the new one is ready,
	// or the old one again, which is an error.
	Upgrade func(ctx context.Context, program string) (Upgraded, error)
	// Meter says where answers are metered, [config.MeterModule] or
	// [config.MeterExtProc]; "" where no gateway runs.
	Meter func() string
	// Adapters of the engine; nil where no engine runs here, or where it takes no
	// adapters.
	Adapters *Adapters
	Log      hclog.Logger
}

type api struct{ o Options }

// Handler serves the API.
func Handler(o Options) http.Handler {
	a := &api{o: o}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /state", a.state)
	mux.HandleFunc("GET /log-stats", a.logStats)
	mux.HandleFunc("GET /log", a.log)
	mux.HandleFunc("POST /clean-logs", a.cleanLogs)
	mux.HandleFunc("POST /restart", a.restart)
	mux.HandleFunc("POST /upgrade", a.upgrade)
	mux.HandleFunc("POST /load-lora-adapter", a.load)
	mux.HandleFunc("POST /unload-lora-adapter", a.unload)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, "unknown path or method: "+r.Method+" "+r.URL.Path)
	})
	if o.Token == "" {
		return mux
	}
	want := sha256.Sum256([]byte(o.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		got := sha256.Sum256([]byte(token))
		if !ok || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			fail(w, http.StatusUnauthorized, "the token of launcher.token_file is needed")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// Serve serves h on l until ctx ends, and closes l.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve control API: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if srv.Shutdown(stop) != nil {
		_ = srv.Close() // a call that lasts longer is cut
	}
	<-done
	return nil
}

func (a *api) state(w http.ResponseWriter, _ *http.Request) {
	children := a.o.Children()
	if children == nil {
		children = []supervisor.Status{}
	}
	state := map[string]any{"children": children}
	if a.o.Meter != nil {
		state["meter"] = a.o.Meter()
	}
	answer(w, http.StatusOK, state)
}

func (a *api) logStats(w http.ResponseWriter, _ *http.Request) {
	s, err := logfile.Stats(a.o.LogDir)
	if err != nil {
		a.broken(w, "cannot read the log folder", err)
		return
	}
	answer(w, http.StatusOK, s)
}

func (a *api) cleanLogs(w http.ResponseWriter, r *http.Request) {
	days, err := strconv.Atoi(r.URL.Query().Get("days"))
	if err != nil {
		fail(w, http.StatusBadRequest, "days must be a whole number, as in /clean-logs?days=7")
		return
	}
	done, err := logfile.Clean(a.o.LogDir, days)
	switch {
	case errors.Is(err, logfile.ErrDays):
		fail(w, http.StatusBadRequest, logfile.ErrDays.Error())
	case err != nil:
		a.broken(w, "cannot clean the log folder", err)
	default:
		answer(w, http.StatusOK, done)
	}
}

func (a *api) log(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	lines, err := strconv.Atoi(q.Get("lines"))
	if err != nil || lines < 1 || lines > logfile.MaxTail {
		fail(w, http.StatusBadRequest, fmt.Sprintf("lines must be a whole number from 1 to %d", logfile.MaxTail))
		return
	}
	tail, err := logfile.Tail(a.o.LogDir, q.Get("name"), lines)
	switch {
	case errors.Is(err, logfile.ErrNoLog):
		fail(w, http.StatusNotFound, logfile.ErrNoLog.Error())
	case err != nil:
		a.broken(w, "cannot read the log", err)
	default:
		answer(w, http.StatusOK, map[string]any{"log": q.Get("name"), "lines": tail})
	}
}

func (a *api) restart(w http.ResponseWriter, r *http.Request) {
	child := r.URL.Query().Get("child")
	switch err := a.o.Restart(child); {
	case errors.Is(err, ErrNoChild):
		fail(w, http.StatusNotFound, "there is no child "+strconv.Quote(child)+"; GET /state lists them")
	case err != nil:
		a.broken(w, "cannot restart", err)
	default:
		answer(w, http.StatusAccepted, map[string]any{"child": child, "message": "is being restarted"})
	}
}

// Upgraded is what became of an upgrade.
type Upgraded struct {
	From string  `json:"from"` // versions
	To   string  `json:"to"`
	Took float64 `json:"took_seconds"` // until the new one was ready
}

// ErrUpgrade marks a program that was refused, or did not become ready: what ran
// before runs.
var ErrUpgrade = errors.New("tollgate was not upgraded")

func (a *api) upgrade(w http.ResponseWriter, r *http.Request) {
	if a.o.Upgrade == nil {
		fail(w, http.StatusConflict, "no tollgate runs here")
		return
	}
	var asked struct {
		Program string `json:"program"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&asked); err != nil {
		fail(w, http.StatusBadRequest, `the body must be {"program": "PATH"}, or with "" for the program that lies where the running one lay`)
		return
	}
	done, err := a.o.Upgrade(r.Context(), asked.Program)
	switch {
	case errors.Is(err, ErrUpgrade):
		fail(w, http.StatusUnprocessableEntity, err.Error())
	case err != nil:
		a.broken(w, "cannot upgrade", err)
	default:
		answer(w, http.StatusOK, done)
	}
}

func (a *api) load(w http.ResponseWriter, r *http.Request) {
	a.adapter(w, r, func(ctx context.Context, req vllm.Adapter) (vllm.Answer, error) { return a.o.Adapters.Load(ctx, req) })
}

func (a *api) unload(w http.ResponseWriter, r *http.Request) {
	a.adapter(w, r, func(ctx context.Context, req vllm.Adapter) (vllm.Answer, error) {
		return a.o.Adapters.Unload(ctx, req.Name)
	})
}

func (a *api) adapter(w http.ResponseWriter, r *http.Request, do func(context.Context, vllm.Adapter) (vllm.Answer, error)) {
	if a.o.Adapters == nil {
		fail(w, http.StatusConflict, "adapters are not managed here: vllm.auto_start, vllm.lora.enabled and vllm.lora.runtime.enabled are needed")
		return
	}
	req, err := decodeRequest(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	res, err := do(r.Context(), req)
	var refused *RefusedError
	switch {
	case errors.As(err, &refused):
		fail(w, http.StatusBadRequest, refused.Error())
	case errors.Is(err, ErrEngine):
		a.o.Log.Warn("engine does not answer", "error", err)
		fail(w, http.StatusServiceUnavailable, ErrEngine.Error())
	case err != nil:
		a.broken(w, "the engine did it, but it could not be written down and will not survive a restart", err)
	case res.Status != http.StatusOK:
		fail(w, res.Status, res.Message)
	default:
		answer(w, http.StatusOK, map[string]any{"adapter": req.Name, "message": res.Message})
	}
}

func (a *api) broken(w http.ResponseWriter, message string, err error) {
	a.o.Log.Error(message, "error", err)
	fail(w, http.StatusInternalServerError, message)
}

func fail(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]any{"error": map[string]any{"message": message}})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the caller may have left
}
