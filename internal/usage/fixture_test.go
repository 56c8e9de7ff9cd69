package usage_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/usage"
)

const fixtures = "testdata/vllm-0.32.0"

// recording is a recorded answer and what a meter is told about it.
type recording struct {
	name string
	o    usage.Options
	body []byte
}

// load reads one recorded exchange; n and the prompts come from the request.
func load(tb testing.TB, name string) recording {
	tb.Helper()
	raw, err := os.ReadFile(filepath.Join(fixtures, name+".resp"))
	if err != nil {
		tb.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), nil)
	if err != nil {
		tb.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) { // one was cut
		tb.Fatal(err)
	}
	_ = resp.Body.Close() // says so again
	rec := recording{name: name, o: usage.Options{Choices: 1, Prompts: 1}, body: body}
	rec.o.SSE = strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream")
	path := request(tb, name, &rec.o)
	switch {
	case strings.Contains(path, "count_tokens"), strings.Contains(path, "tokenize"):
		rec.o.Format = usage.Free
	case strings.Contains(path, "/messages"):
		rec.o.Format = usage.Messages
	case strings.Contains(path, "/responses"):
		rec.o.Format = usage.Responses
	case strings.Contains(path, "/v1/completions"):
		rec.o.Format = usage.Completions
	}
	return rec
}

// request reads the request of a recorded exchange and returns its path.
func request(tb testing.TB, name string, o *usage.Options) string {
	tb.Helper()
	raw, err := os.ReadFile(filepath.Join(fixtures, name+".req"))
	if os.IsNotExist(err) { // recorded without
		if strings.Contains(name, "messages") {
			return "/v1/messages"
		}
		return "/v1/chat/completions"
	}
	if err != nil {
		tb.Fatal(err)
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		tb.Fatal(err)
	}
	var b struct {
		N      int             `json:"n"`
		Prompt json.RawMessage `json:"prompt"`
		Batch  json.RawMessage `json:"messages"`
	}
	if err := json.NewDecoder(req.Body).Decode(&b); err != nil && err != io.EOF {
		tb.Fatalf("%s: %v", name, err)
	}
	var texts []string
	if json.Unmarshal(b.Prompt, &texts) == nil && len(texts) > 0 {
		o.Prompts = len(texts)
	}
	var lists [][]any
	if json.Unmarshal(b.Batch, &lists) == nil && len(lists) > 0 {
		o.Prompts = len(lists)
	}
	o.Choices = max(b.N, 1) * o.Prompts
	return req.URL.Path
}

// loadAll reads all recorded exchanges.
func loadAll(tb testing.TB) []recording {
	tb.Helper()
	paths, err := filepath.Glob(filepath.Join(fixtures, "*", "*.resp"))
	if err != nil {
		tb.Fatal(err)
	}
	var all []recording
	for _, p := range paths {
		rel, err := filepath.Rel(fixtures, strings.TrimSuffix(p, ".resp"))
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, load(tb, rel))
	}
	if len(all) < 60 {
		tb.Fatalf("got %d recordings, want at least 60", len(all))
	}
	return all
}

// feed gives a meter the pieces and returns its report and what it forwarded.
func feed(m *usage.Meter, pieces ...[]byte) (usage.Report, []byte) {
	var out []byte
	for i, p := range pieces {
		mine := slices.Clone(p)
		forward, changed := m.Feed(mine, i == len(pieces)-1)
		if !changed && !bytes.Equal(forward, p) {
			panic("unchanged bytes differ")
		}
		out = append(out, forward...)
		for j := range mine {
			mine[j] = 'X' // a meter that kept the chunk shows it
		}
	}
	return m.Report(), out
}

func split(b []byte, at ...int) [][]byte {
	var pieces [][]byte
	from := 0
	for _, a := range at {
		pieces = append(pieces, b[from:a])
		from = a
	}
	return append(pieces, b[from:])
}

func bytewise(b []byte) [][]byte {
	pieces := make([][]byte, 0, len(b))
	for i := range b {
		pieces = append(pieces, b[i:i+1])
	}
	return pieces
}

// variants are the options with every way to strip.
func variants(o usage.Options) []usage.Options {
	if !o.SSE {
		return []usage.Options{o}
	}
	var all []usage.Options
	for i := range 4 {
		o.StripFinal, o.StripRunning = i&1 != 0, i&2 != 0
		all = append(all, o)
	}
	return all
}

func TestRecordedAnswersAreCountedAsTheirDocumentsSay(t *testing.T) {
	said := 0
	for _, rec := range loadAll(t) {
		want, ok := refer(rec.o, rec.body)
		if !ok {
			// Only the answer whose connection was cut may end inside a document.
			if rec.name != "base/sigkill_main" {
				t.Errorf("%s: not JSON", rec.name)
			}
			continue
		}
		got, out := feed(usage.NewMeter(rec.o), rec.body)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", rec.name, diff)
		}
		if !bytes.Equal(out, rec.body) {
			t.Errorf("%s: the bytes changed", rec.name)
		}
		if got.Final {
			said++
		}
	}
	if said < 40 {
		t.Errorf("got final usage of %d recordings, want at least 40", said)
	}
}

func TestKnownRecordings(t *testing.T) {
	none := usage.Unsaid
	for _, tc := range []struct {
		name  string
		want  usage.Counts
		final bool
		end   usage.End
	}{
		{"base/chat", usage.Counts{Prompt: 18, Completion: 6, Cached: none, Reasoning: none}, true, usage.Done},
		{"base/chat_n2", usage.Counts{Prompt: 18, Completion: 12, Cached: none, Reasoning: none}, true, usage.Done},
		{"base/chat_batch", usage.Counts{Prompt: 36, Completion: 6, Cached: none, Reasoning: none}, true, usage.Done},
		{"base/chat_stream", usage.None(), false, usage.Done},
		{"base/chat_stream_cont_n2", usage.Counts{Prompt: 18, Completion: 12, Cached: none, Reasoning: none}, true, usage.Done},
		{"base/comp_stream_cont_2prompts", usage.Counts{Prompt: 6, Completion: 6, Cached: none, Reasoning: none}, true, usage.Done},
		{"base/messages_stream", usage.Counts{Prompt: 18, Completion: 5, Cached: none, Reasoning: none}, true, usage.Done},
		{"base/responses_stream", usage.Counts{Prompt: 18, Completion: 5, Cached: 0, Reasoning: 0}, true, usage.Done},
		{"base/sigkill_engine", usage.Counts{Prompt: 15, Completion: 4, Cached: none, Reasoning: none}, false, usage.Failed},
		{"base/sigkill_main", usage.Counts{Prompt: 15, Completion: 21, Cached: none, Reasoning: none}, false, usage.Open},
		{"base/sigterm_midstream", usage.Counts{Prompt: 15, Completion: 253, Cached: none, Reasoning: none}, true, usage.EngineAborted},
		{"base/tokenize", usage.Counts{Prompt: 0, Completion: 0, Cached: none, Reasoning: none}, true, usage.Done},
		{"lora/cached_messages_stream", usage.Counts{Prompt: 275, Completion: 2, Cached: 256, Reasoning: none}, true, usage.Done},
		{"lora/cached_responses", usage.Counts{Prompt: 275, Completion: 2, Cached: 256, Reasoning: 0}, true, usage.Done},
		{"lora/err_queue_full_chat_stream200", usage.None(), false, usage.Failed},
		{"lora/err_queue_full_messages_stream", usage.None(), false, usage.Failed},
		{"lora/sse_keepalive", usage.Counts{Prompt: 28015, Completion: 5, Cached: 256, Reasoning: none}, true, usage.Done},
		{"lora/tool_named_stream", usage.Counts{Prompt: 18, Completion: 120, Cached: 0, Reasoning: none}, true, usage.Done},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rec := load(t, tc.name)
			m := usage.NewMeter(rec.o)
			got, _ := feed(m, rec.body)
			if diff := cmp.Diff(tc.want, got.Counts); diff != "" {
				t.Errorf("counts (-want +got)\n%s", diff)
			}
			if got.Final != tc.final || got.End != tc.end || m.Ended() != (tc.end != usage.Open) {
				t.Errorf("got final %t, end %d, ended %t; want %t, %d", got.Final, got.End, m.Ended(), tc.final, tc.end)
			}
			if got.Anomalies != [usage.Anomalies]uint32{} {
				t.Errorf("got anomalies %v", got.Anomalies)
			}
		})
	}
}

func TestAnySplitOfARecordingGivesTheSame(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	m := usage.NewMeter(usage.Options{})
	for _, rec := range loadAll(t) {
		for _, o := range variants(rec.o) {
			m.Reset(o)
			want, wantOut := feed(m, rec.body)
			check := func(pieces [][]byte, how ...int) {
				t.Helper()
				m.Reset(o)
				got, out := feed(m, pieces...)
				if got != want || !bytes.Equal(out, wantOut) {
					t.Fatalf("%s split at %v with %+v:\n%s", rec.name, how, o, cmp.Diff(want, got)+cmp.Diff(string(wantOut), string(out)))
				}
			}
			check(bytewise(rec.body))
			step := (1 + len(rec.body)/10_000*500) * thin // the one long recording is sampled
			for i := 0; i <= len(rec.body); i += step {
				check(split(rec.body, i), i)
			}
			for range 50 / thin {
				a, b := rng.IntN(len(rec.body)+1), rng.IntN(len(rec.body)+1)
				check(split(rec.body, min(a, b), max(a, b)), a, b)
			}
		}
	}
}
