package vllmsim

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// Options are what the command line of a vLLM would say. The zero value is a
// server called "simulated" with a context of 131072 tokens that answers
// without any delay and without a key.
type Options struct {
	// Models are the served names, --served-model-name; answers carry the
	// first. Empty: "simulated".
	Models []string
	// Root is the model's path as /v1/models shows it. Empty: the first name.
	Root string
	// MaxModelLen is the context in tokens. 0: 131072.
	MaxModelLen int
	// APIKey guards /v1, /v2 and /inference. Empty: no key.
	APIKey string
	// FirstDelay passes before the first token, Delay before every further
	// one; scripts override both. 0: none.
	FirstDelay, Delay time.Duration
	// MaxNumSeqs bounds how many choices are answered at once; others wait. 0: no bound.
	MaxNumSeqs int
	// MaxQueued is --max-num-queued-reqs: more choices, running or waiting,
	// are refused with 503. 0: no bound.
	MaxQueued int

	// EnableLoRA gives the load and unload routes. An adapter must lie at its
	// path with an adapter_config.json of rank at most MaxLoRARank (0: 16).
	EnableLoRA  bool
	MaxLoRARank int
	// Adapters are loaded from the start, name to path; the path is not looked at.
	Adapters map[string]string
	// ResolverDir makes an unknown model name load the folder of that name
	// under it, as the filesystem resolver does. Empty: none.
	ResolverDir string

	// GenerateOnly takes the embedding, pooling, score and rerank routes away, which a
	// real server with a generating model does not have.
	GenerateOnly bool
	// ToolParser is --enable-auto-tool-choice with a parser: tools are allowed
	// and chunks without text are suppressed.
	ToolParser bool
	// TokenDetails, ForceUsage, RequestIDHeader and RequestMetrics are
	// --enable-prompt-tokens-details, --enable-force-include-usage,
	// --enable-request-id-headers and --enable-per-request-metrics.
	TokenDetails, ForceUsage, RequestIDHeader, RequestMetrics bool
	// NoFingerprint is --fingerprint-mode none.
	NoFingerprint bool

	// BlockSize and CacheBlocks are --block-size and --num-gpu-blocks-override: the
	// tokens of a block of the prefix cache, and how many blocks it has. 0: 128, 4096.
	BlockSize, CacheBlocks int
	// PrefillRate is how many tokens of a prompt that are not cached are read in a
	// second, before the first token. 0: no delay.
	PrefillRate int

	// IdleTimeout closes a connection that waits for its next request
	// (VLLM_HTTP_TIMEOUT_KEEP_ALIVE). 0: 5 s. [Serve] only.
	IdleTimeout time.Duration
	// ShutdownTimeout is how long a stop lets running requests go on before
	// it aborts them. 0: at once. [Serve] only.
	ShutdownTimeout time.Duration
	// StartDelay is how long [ListenAndServe] refuses connections first.
	StartDelay time.Duration
	// MaxTruths bounds how many ended requests are remembered. 0: 20000.
	MaxTruths int
}

func (o Options) withDefaults() Options {
	if len(o.Models) == 0 {
		o.Models = []string{"simulated"}
	}
	if o.Root == "" {
		o.Root = o.Models[0]
	}
	o.MaxModelLen = orDefault(o.MaxModelLen, 131072)
	o.MaxLoRARank = orDefault(o.MaxLoRARank, 16)
	o.BlockSize = orDefault(o.BlockSize, 128)
	o.CacheBlocks = orDefault(o.CacheBlocks, 4096)
	o.MaxTruths = orDefault(o.MaxTruths, 20000)
	o.IdleTimeout = orDefault(o.IdleTimeout, 5*time.Second)
	return o
}

func orDefault[T int | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

// fingerprint is what a real 0.32.0 said.
const fingerprint = "vllm-0.32.0-6afc9922"

// Sim is the simulated server: an [http.Handler]. Its methods may be called
// at any time, from any goroutine.
type Sim struct {
	opts    Options
	routes  map[string]route
	batch   *semaphore.Weighted // nil without MaxNumSeqs
	records *records
	exited  chan int // receives the code of POST /sim/exit, once

	mu          sync.Mutex
	life        *life        // guarded by mu
	tally       *tally       // guarded by mu
	defaults    *Script      // guarded by mu; read-only once set
	defaultsRaw []byte       // guarded by mu; defaults in JSON, nil for none
	notReady    bool         // guarded by mu
	readyAt     time.Time    // guarded by mu; zero: now
	draining    bool         // guarded by mu
	adapters    []adapter    // guarded by mu; in order of loading
	prefixes    *prefixCache // guarded by mu
}

// life ends all answers of one engine at once. A reset begins a new one.
type life struct {
	once  sync.Once
	over  chan struct{}
	cause error // read after over is closed: errStopped, errDead or errCut
}

func newLife() *life { return &life{over: make(chan struct{})} }

// end ends it. Only the first cause counts.
func (l *life) end(cause error) {
	l.once.Do(func() {
		l.cause = cause
		close(l.over)
	})
}

// err is nil while it lasts.
func (l *life) err() error {
	if closed(l.over) {
		return l.cause
	}
	return nil
}

// New makes a server.
func New(opts Options) *Sim {
	opts = opts.withDefaults()
	s := &Sim{
		opts: opts, records: newRecords(opts.MaxTruths), exited: make(chan int, 1),
		life: newLife(), tally: newTally(), defaults: &Script{}, prefixes: newPrefixCache(opts.BlockSize, opts.CacheBlocks),
	}
	if opts.MaxNumSeqs > 0 {
		s.batch = semaphore.NewWeighted(int64(opts.MaxNumSeqs))
	}
	s.resetAdapters()
	s.routes = s.table()
	return s
}

// route is one path of vLLM.
type route struct {
	methods string // as the allow header says them
	serve   func(s *Sim, w http.ResponseWriter, r *http.Request)
}

// post is an inference route: its answer gets the parsed body.
func post(path string, answer func(*exchange)) route {
	return route{"POST", func(s *Sim, w http.ResponseWriter, r *http.Request) { s.infer(w, r, path, answer) }}
}

func (s *Sim) table() map[string]route {
	t := map[string]route{
		"/health":     {"GET", (*Sim).health},
		"/ping":       {"GET, POST", (*Sim).health},
		"/version":    {"GET", fixed(`{"version":"0.32.0"}`)},
		"/load":       {"GET", fixed(`{"server_load":0}`)},
		"/metrics":    {"GET", (*Sim).metrics},
		"/v1/models":  {"GET", (*Sim).models},
		"/tokenize":   {"POST", (*Sim).tokenize},
		"/detokenize": {"POST", (*Sim).detokenize},
	}
	t["/v1/messages/count_tokens"] = route{"POST", (*Sim).countTokens}
	for path, answer := range map[string]func(*exchange){
		"/v1/chat/completions": (*exchange).chat,
		"/v1/completions":      (*exchange).completions,
		"/v1/responses":        (*exchange).responses,
		"/v1/messages":         (*exchange).messages,
	} {
		t[path] = post(path, answer)
	}
	if !s.opts.GenerateOnly {
		for path, answer := range map[string]func(*exchange){
			"/v1/embeddings": (*exchange).embeddings,
			"/v1/score":      (*exchange).score, "/score": (*exchange).score,
			"/pooling": (*exchange).pooling, "/classify": (*exchange).classify,
			"/v1/rerank": (*exchange).rerank, "/rerank": (*exchange).rerank, "/v2/rerank": (*exchange).rerank,
		} {
			t[path] = post(path, answer)
		}
	}
	if s.opts.EnableLoRA {
		t["/v1/load_lora_adapter"] = route{"POST", (*Sim).loadAdapter}
		t["/v1/unload_lora_adapter"] = route{"POST", (*Sim).unloadAdapter}
	}
	return t
}

// ServeHTTP answers a request as vLLM would, or one to /sim.
func (s *Sim) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/sim/") {
		s.control(w, r)
		return
	}
	if !s.ready() {
		cutConnection(w, cutRST)
		return
	}
	h := w.Header()
	h.Set("Server", "uvicorn")
	h.Set("Vary", "Origin")
	if r.Header.Get("Origin") != "" {
		h.Set("Access-Control-Allow-Origin", "*")
	}
	if s.opts.RequestIDHeader {
		id := r.Header.Get("X-Request-Id")
		if id == "" {
			id = randomHex(16)
		}
		h.Set("X-Request-Id", id)
	}
	if !s.allowed(r) {
		h.Del("Vary") // the key is checked outside of CORS
		h.Del("Access-Control-Allow-Origin")
		writeJSON(w, http.StatusUnauthorized, []byte(`{"error":"Unauthorized"}`))
		return
	}
	rt, ok := s.routes[r.URL.Path]
	switch {
	case !ok:
		writeJSON(w, http.StatusNotFound, []byte(`{"detail":"Not Found"}`))
	case !slices.Contains(strings.Split(rt.methods, ", "), r.Method):
		h.Set("Allow", rt.methods)
		writeJSON(w, http.StatusMethodNotAllowed, []byte(`{"detail":"Method Not Allowed"}`))
	default:
		rt.serve(s, w, r)
	}
}

// allowed checks the key where vLLM does: not on /tokenize, /metrics and others.
func (s *Sim) allowed(r *http.Request) bool {
	if s.opts.APIKey == "" || r.Method == http.MethodOptions {
		return true
	}
	for _, prefix := range []string{"/v1", "/v2", "/inference", "/cohere"} {
		if strings.HasPrefix(r.URL.Path, prefix) {
			return r.Header.Get("Authorization") == "Bearer "+s.opts.APIKey
		}
	}
	return true
}

func (s *Sim) ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.notReady && !time.Now().Before(s.readyAt)
}

func (s *Sim) current() (*life, *tally) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.life, s.tally
}

func (s *Sim) health(w http.ResponseWriter, _ *http.Request) {
	l, _ := s.current()
	status := http.StatusOK
	if errors.Is(l.err(), errDead) {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(status)
}

// Truth returns what happened to the latest request with that x-request-id.
func (s *Sim) Truth(requestID string) (Truth, bool) {
	r := s.records.find(requestID)
	if r == nil {
		return Truth{}, false
	}
	return r.snapshot(), true
}

// Truths returns what happened to every remembered request, oldest first.
func (s *Sim) Truths() []Truth { return s.records.snapshots() }

// ErrUnknownRequest says that no request with an id has arrived.
var ErrUnknownRequest = errors.New("unknown request")

// WaitEnd waits until the latest request with that x-request-id has ended and
// returns what happened to it. It fails with [ErrUnknownRequest] when none has
// arrived, or with the error of ctx.
func (s *Sim) WaitEnd(ctx context.Context, requestID string) (Truth, error) {
	r := s.records.find(requestID)
	if r == nil {
		return Truth{}, fmt.Errorf("find %q: %w", requestID, ErrUnknownRequest)
	}
	select {
	case <-r.ended:
		return r.snapshot(), nil
	case <-ctx.Done():
		return r.snapshot(), fmt.Errorf("wait for %q to end: %w", requestID, ctx.Err())
	}
}

// Stats returns the totals.
func (s *Sim) Stats() Stats {
	_, t := s.current()
	return t.stats()
}

// Release resumes every paused request and returns how many there were.
func (s *Sim) Release() int { return s.records.release("") }

// ReleaseRequest resumes the paused requests with that x-request-id.
func (s *Sim) ReleaseRequest(requestID string) int { return s.records.release(requestID) }

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
