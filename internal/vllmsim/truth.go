package vllmsim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Truth is what really happened to one inference request.
type Truth struct {
	Seq        int64  `json:"seq"`        // order of arrival, from 1
	RequestID  string `json:"request_id"` // x-request-id as received, "" for none
	ResponseID string `json:"response_id"`
	Endpoint   string `json:"endpoint"`
	Model      string `json:"model"` // as answered; "" when the request was refused
	Group      string `json:"group,omitempty"`
	Stream     bool   `json:"stream"`
	Status     int    `json:"status"` // 0 until an answer began
	N          int    `json:"n"`
	Prompts    int    `json:"prompts"`
	// PromptTokens counts each prompt once, whatever n is.
	PromptTokens int `json:"prompt_tokens"`
	// Generated, Written and Chunks are by choice index: tokens that the
	// engine made, tokens of the events that were written (what a running
	// usage in them says), content chunks written.
	Generated []int `json:"generated"`
	Written   []int `json:"written"`
	Chunks    []int `json:"chunks"`
	// Events counts every event written, comments apart.
	Events int `json:"events"`
	// Paused: the scripted pause holds; the chunk before it may still be on
	// its way.
	Paused bool `json:"paused"`
	// Finished: the answer was written to its end, whatever its status.
	Finished bool `json:"finished"`
	// Aborted: the client left before the end.
	Aborted bool `json:"aborted"`
	// Cut: the simulator closed the connection as scripted.
	Cut       bool      `json:"cut"`
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at,omitzero"` // zero while it runs
	// Headers as received, names in lower case; of credentials only that they
	// were there.
	Headers map[string][]string `json:"headers"`
	// Keys are the top-level names of the body, sorted, Fields their values;
	// one longer than 4 KiB is null there.
	Keys       []string                   `json:"keys"`
	Fields     map[string]json.RawMessage `json:"fields"`
	BodyBytes  int                        `json:"body_bytes"`
	BodySHA256 string                     `json:"body_sha256"`
}

// Completion is the number of generated tokens over all choices.
func (t Truth) Completion() int { return sum(t.Generated) }

// WrittenTokens is the number of written tokens over all choices.
func (t Truth) WrittenTokens() int { return sum(t.Written) }

func sum(v []int) int {
	n := 0
	for _, x := range v {
		n += x
	}
	return n
}

// maxField is how much of one body field is kept, in bytes.
const maxField = 4096

// credentials are headers whose value is a secret.
var credentials = map[string]bool{"authorization": true, "x-api-key": true, "cookie": true, "proxy-authorization": true}

// record is a Truth that is being written.
type record struct {
	mu    sync.Mutex
	truth Truth         // guarded by mu
	ended chan struct{} // closed with EndedAt
	gate  chan struct{} // closed by a release; guarded by mu
}

func (r *record) snapshot() Truth {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.truth
	t.Generated = slices.Clone(t.Generated)
	t.Written = slices.Clone(t.Written)
	t.Chunks = slices.Clone(t.Chunks)
	return t
}

func (r *record) update(f func(*Truth)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.truth)
}

// end closes the record. Only the first call sets the time.
func (r *record) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.truth.EndedAt.IsZero() {
		r.truth.EndedAt = time.Now()
		close(r.ended)
	}
}

// pause marks the record paused and returns what a release closes.
func (r *record) pause() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.truth.Paused = true
	r.gate = make(chan struct{})
	return r.gate
}

// release resumes a paused record and tells whether it was paused.
func (r *record) release() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.truth.Paused {
		return false
	}
	r.truth.Paused = false
	close(r.gate)
	return true
}

// newRecord notes the arrival of a request; body is not kept.
func newRecord(r *http.Request, endpoint string, body []byte, f fields) *record {
	t := Truth{
		RequestID: r.Header.Get("X-Request-Id"), Endpoint: endpoint, StartedAt: time.Now(),
		BodyBytes: len(body), Headers: make(map[string][]string, len(r.Header)),
		Fields: make(map[string]json.RawMessage, len(f)),
	}
	digest := sha256.Sum256(body)
	t.BodySHA256 = hex.EncodeToString(digest[:])
	for name, values := range r.Header {
		name = strings.ToLower(name)
		if credentials[name] {
			values = []string{"(present)"}
		}
		t.Headers[name] = values
	}
	for name, value := range f {
		t.Keys = append(t.Keys, name)
		if len(value) > maxField {
			value = json.RawMessage("null")
		}
		t.Fields[name] = slices.Clone(value) // a RawMessage would hold the whole body
	}
	slices.Sort(t.Keys)
	return &record{truth: t, ended: make(chan struct{})}
}
