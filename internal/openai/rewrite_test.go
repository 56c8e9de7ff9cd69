package openai_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tollgate/internal/openai"
)

const options = `{"include_usage":true,"continuous_usage_stats":true}`

func TestRewriteTouchesOnlyWhatItMust(t *testing.T) {
	salted := limits
	salted.CacheSalt = `k"\1`
	for _, tt := range []struct {
		name, in, want string
		lim            openai.Limits
	}{
		{"nothing to do", ` { "model" : "m" , "n":1, "stream" : false } `, ` { "model" : "m" , "n":1, "stream" : false } `, limits},
		{"options added", `{"model":"m","stream":true}`, `{"stream_options":` + options + `,"model":"m","stream":true}`, limits},
		{"options added behind spaces", `{ "model":"m", "stream":true }`, `{"stream_options":` + options + `, "model":"m", "stream":true }`, limits},
		{"options replaced", `{"stream_options" : {"include_usage": false, "x":[]} , "model":"m","stream":true}`, `{"stream_options" : ` + options + ` , "model":"m","stream":true}`, limits},
		{"a name of the options is free outside", `{"stream_options":{"x":1},"x":1,"model":"m","stream":true}`, `{"stream_options":` + options + `,"x":1,"model":"m","stream":true}`, limits},
		{"null options replaced", `{"model":"m","stream":true,"stream_options":null}`, `{"model":"m","stream":true,"stream_options":` + options + `}`, limits},
		{"null options stay", `{"model":"m","stream_options":null}`, `{"model":"m","stream_options":null}`, limits},
		{"first removed", `{"priority":1,"model":"m"}`, `{"model":"m"}`, limits},
		{"first two removed", `{ "priority":1 , "request_id":"x" , "model":"m"}`, `{"model":"m"}`, limits},
		{"middle removed", `{"model":"m","cache_salt":"x" , "n":1}`, `{"model":"m" , "n":1}`, limits},
		{"last removed", `{"model":"m" , "vllm_xargs":{"a":[1]} }`, `{"model":"m"  }`, limits},
		{"first, middle and last", `{"session_id":"s","model":"m","kv_transfer_params":{},"ec_transfer_params":null,"n":1,"data_parallel_rank":0}`, `{"model":"m","n":1}`, limits},
		{"escaped name removed", `{"model":"m","\u0070riority":1}`, `{"model":"m"}`, limits},
		{"first removed and options added", `{"lora_path":"/x","model":"m","stream":true,"lora_request":{}}`, `{"stream_options":` + options + `,"model":"m","stream":true}`, limits},
		{"nested stays", `{"model":"m","metadata":{"priority":1,"cache_salt":"x"}}`, `{"model":"m","metadata":{"priority":1,"cache_salt":"x"}}`, limits},
		{"salt added", `{"model":"m"}`, `{"cache_salt":"k\"\\1","model":"m"}`, salted},
		{"salt replaces the client's", `{"cache_salt":"mine","model":"m","stream":true}`, `{"stream_options":` + options + `,"cache_salt":"k\"\\1","model":"m","stream":true}`, salted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := []byte(tt.in)
			r := parse(t, openai.ChatCompletions, tt.in, tt.lim)
			if diff := cmp.Diff(tt.want, string(r.Body)); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
			if string(in) != tt.in {
				t.Error("the client's body was modified")
			}
		})
	}
}

func TestNoClientSteersTheEngine(t *testing.T) {
	if len(taken) != 15 {
		t.Fatalf("got %d fields", len(taken))
	}
	for name := range taken {
		for _, ep := range openai.Endpoints() {
			for _, value := range []string{`1`, `"x"`, `null`, `{"a":[1]}`} {
				body := `{"` + name + `":` + value + `,"model":"m"}`
				if got := string(parse(t, ep, body, limits).Body); got != `{"model":"m"}` {
					t.Errorf("%s: %s became %s", ep, body, got)
				}
			}
			body := `{"` + strings.ToUpper(name[:1]) + name[1:] + `":1,"model":"m"}`
			if got := refused(t, ep, body).Param; got != name {
				t.Errorf("%s: %s: got param %q, want %q", ep, body, got, name)
			}
		}
	}
}

func TestOnlyChatAndCompletionsGetStreamOptions(t *testing.T) {
	for _, ep := range openai.Endpoints() {
		const body = `{"model":"m","stream":true}`
		added := string(parse(t, ep, body, limits).Body) != body
		if want := ep == openai.ChatCompletions || ep == openai.Completions; added != want {
			t.Errorf("%s: options added %v, want %v", ep, added, want)
		}
	}
	const body = `{"model":"m","stream_options":{"include_obfuscation":false},"stream":true}`
	if got := string(parse(t, openai.Responses, body, limits).Body); got != body {
		t.Errorf("responses: got %s", got)
	}
}

func TestFreeRoutesGetNoSalt(t *testing.T) {
	for _, ep := range openai.Endpoints() {
		r := parse(t, ep, `{"model":"m"}`, openai.Limits{CacheSalt: "s"})
		if got := strings.Contains(string(r.Body), "cache_salt"); got == ep.Free() {
			t.Errorf("%s: salted %v", ep, got)
		}
	}
}

// member is a top-level member: its decoded name and its value's bytes.
type member struct{ Name, Value string }

// topLevel reads a document with jsontext, strictly.
func topLevel(b []byte) ([]member, error) {
	if v := jsontext.Value(b); !v.IsValid() {
		return nil, errors.New("not valid JSON")
	}
	d := jsontext.NewDecoder(bytes.NewReader(b))
	if d.PeekKind() != '{' {
		return nil, errors.New("not an object")
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	var out []member
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		m := member{Name: name.String()}
		value, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		m.Value = string(value)
		out = append(out, m)
	}
	return out, nil
}

// taken are the fields that may not reach vLLM.
var taken = map[string]bool{
	"priority": true, "request_id": true, "session_id": true, "cache_salt": true, "kv_transfer_params": true,
	"ec_transfer_params": true, "vllm_xargs": true, "data_parallel_rank": true, "data_parallel_rank_local": true,
	"lora_path": true, "lora_local_path": true, "lora_request": true, "lora_name": true, "lora_int_id": true, "lora_modules": true,
}

// expected is what vLLM must get for a document, by another road than Parse.
func expected(ep openai.Endpoint, salt string, in []member, stream bool) []member {
	var added, kept []member
	rewrite := stream && (ep == openai.ChatCompletions || ep == openai.Completions)
	had := false
	for _, m := range in {
		switch {
		case taken[m.Name]:
			continue
		case m.Name == "stream_options" && rewrite:
			m.Value, had = options, true
		}
		kept = append(kept, m)
	}
	if rewrite && !had {
		added = append(added, member{"stream_options", options})
	}
	if salt != "" && !ep.Free() {
		added = append(added, member{"cache_salt", strconv.Quote(salt)})
	}
	return append(added, kept...)
}

// fataler is what check needs of a [testing.TB] or a [rapid.T].
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// check holds Parse against jsontext for one body, valid or not.
func check(tb fataler, ep openai.Endpoint, body []byte, salt string) {
	tb.Helper()
	before := bytes.Clone(body)
	r, err := openai.Parse(ep, body, openai.Limits{MaxN: 16, MaxPrompts: 64, CacheSalt: salt})
	if !bytes.Equal(before, body) {
		tb.Fatalf("the client's body was modified: %q", before)
	}
	in, invalid := topLevel(body)
	if err != nil {
		var bad *openai.BadRequestError
		if !errors.As(err, &bad) || len(bad.Message) == 0 || len(bad.Message) > 256 {
			tb.Fatalf("error %v", err)
		}
		if strings.Contains(bad.Message, "not valid JSON") && invalid == nil && !beyond(body) {
			tb.Fatalf("refused valid JSON %q: %v", body, err)
		}
		return
	}
	if invalid != nil {
		tb.Fatalf("accepted %q: %v", body, invalid)
	}
	out, err := topLevel(r.Body)
	if err != nil {
		tb.Fatalf("rewritten body %q: %v", r.Body, err)
	}
	if diff := cmp.Diff(expected(ep, salt, in, r.Stream), out); diff != "" {
		tb.Fatalf("rewritten %q (-want +got):\n%s", body, diff)
	}
	checkRequest(tb, r, in, len(body))
}

func checkRequest(tb fataler, r *openai.Request, in []member, size int) {
	tb.Helper()
	if r.N < 1 || r.N > 16 || r.Prompts < 1 || r.MaxTokens < -1 || r.MaxTokens > math.MaxInt32 {
		tb.Fatalf("request out of bounds: %+v", r)
	}
	if r.WantsRunning && !r.WantsUsage || r.Endpoint == openai.Completions && r.Prompts > 64 {
		tb.Fatalf("request contradicts itself: %+v", r)
	}
	if r.PromptBytes < 0 || r.PromptBytes > 4*int64(size)+4096*int64(r.Prompts) {
		tb.Fatalf("got %d prompt bytes of %d", r.PromptBytes, size)
	}
	at := slices.IndexFunc(in, func(m member) bool { return m.Name == "model" })
	if at < 0 {
		tb.Fatalf("accepted without a model: %v", in)
	}
	if name, err := jsontext.AppendUnquote(nil, in[at].Value); err != nil || string(name) != r.Model {
		tb.Fatalf("model %q of %s: %v", r.Model, in[at].Value, err)
	}
}

// beyond tells whether valid JSON is refused for its depth or its numbers.
func beyond(body []byte) bool {
	d := jsontext.NewDecoder(bytes.NewReader(body))
	for {
		token, err := d.ReadToken()
		if err != nil {
			return false
		}
		if d.StackDepth() > 64 {
			return true
		}
		if token.Kind() == '0' {
			if _, err := strconv.ParseFloat(token.String(), 64); err != nil {
				return true
			}
		}
	}
}

// recorded returns the bodies of the recorded requests by file name.
func recorded(tb testing.TB) map[string][]byte {
	tb.Helper()
	files, err := filepath.Glob("testdata/vllm-0.32.0/*.req")
	if err != nil || len(files) < 100 {
		tb.Fatalf("got %d recorded requests, error %v", len(files), err)
	}
	bodies := map[string][]byte{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		_, body, ok := bytes.Cut(b, []byte("\r\n\r\n"))
		if !ok {
			tb.Fatalf("%s has no body", file)
		}
		bodies[filepath.Base(file)] = body
	}
	return bodies
}

func TestRecordedRequestsAreRewrittenExactly(t *testing.T) {
	accepted := 0
	for name, body := range recorded(t) {
		t.Run(name, func(t *testing.T) {
			for _, ep := range openai.Endpoints() {
				check(t, ep, body, "")
				check(t, ep, body, "salt")
			}
			if _, err := openai.Parse(openai.ChatCompletions, body, limits); err == nil {
				accepted++
			}
		})
	}
	if accepted < 80 {
		t.Errorf("only %d recorded requests were accepted", accepted)
	}
}

func TestEverySplitOfARecordedRequestIsHandled(t *testing.T) {
	body := []byte(`{"priority":1, "model":"m\u0041","stream":true,"stream_options":{"include_usage":true},"messages":[{"content":"é😀\ud83d\ude00"}],"n":2,"x":[1.5e3,null,true,false,{}],"cache_salt":"s"}`)
	for i := range body {
		check(t, openai.ChatCompletions, body[:i], "")
		for _, c := range []byte("\x00\x1f \"\\{}[],:0-eEtn\xff\x80") {
			mutant := bytes.Clone(body)
			mutant[i] = c
			check(t, openai.ChatCompletions, mutant, "s")
		}
	}
}

// document draws JSON that is mostly valid, with the names that matter.
func document(t *rapid.T) []byte {
	space := rapid.SampledFrom([]string{"", "", "", " ", "\n\t", "\r\n"})
	name := rapid.SampledFrom([]string{
		"model", "stream", "stream_options", "n", "priority", "cache_salt", "messages", "prompt", "input", "tools",
		"x", "Model", "request_id", "max_tokens", `\u006d`, "", "é", "lora_path", "best_of", "url",
	})
	var value func(depth int) string
	value = func(depth int) string {
		switch k := rapid.IntRange(0, 9).Draw(t, "kind"); {
		case k < 6 || depth > 4:
			return rapid.SampledFrom([]string{
				`"m"`, `"é\n\u00e9\ud83d\ude00"`, "true", "false", "null", "1", "2", "-0", "1.5e3", `""`, `"long enough for the loop of 32 bytes \\ "`,
			}).Draw(t, "scalar")
		case k < 8:
			var parts []string
			for range rapid.IntRange(0, 4).Draw(t, "items") {
				parts = append(parts, space.Draw(t, "s")+value(depth+1))
			}
			return "[" + strings.Join(parts, ",") + "]"
		}
		var parts []string
		for range rapid.IntRange(0, 4).Draw(t, "members") {
			parts = append(parts, fmt.Sprintf(`%s"%s"%s:%s`, space.Draw(t, "s"), name.Draw(t, "name"), space.Draw(t, "s"), value(depth+1)))
		}
		return "{" + strings.Join(parts, ",") + space.Draw(t, "s") + "}"
	}
	names := rapid.SliceOfNDistinct(name, 0, 12, rapid.ID).Draw(t, "names")
	parts := make([]string, 0, len(names))
	for _, n := range names {
		v := value(0)
		switch n {
		case "model":
			v = `"m"`
		case "stream":
			v = rapid.SampledFrom([]string{"true", "true", "null", "false"}).Draw(t, "stream")
		case "stream_options":
			v = rapid.SampledFrom([]string{"null", "{}", `{"include_usage":true}`, `{ "include_usage" : true , "continuous_usage_stats":true,"x":[]}`}).Draw(t, "options")
		}
		parts = append(parts, space.Draw(t, "s")+`"`+n+`"`+space.Draw(t, "s")+":"+v+space.Draw(t, "s"))
	}
	return []byte("{" + strings.Join(parts, ",") + "}")
}

func TestRewrittenDocumentsEqualTheOriginalApartFromTheEdits(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		body := document(r)
		ep := rapid.SampledFrom(openai.Endpoints()).Draw(r, "endpoint")
		check(r, ep, body, rapid.SampledFrom([]string{"", "salt"}).Draw(r, "salt"))
	})
}

func FuzzParse(f *testing.F) {
	for _, body := range recorded(f) {
		f.Add(uint8(0), body)
		f.Add(uint8(1), body)
	}
	for _, seed := range []string{
		`{"priority":1,"model":"m","stream":true}`,
		`{"model":"m","stream":true,"stream_options":null,"cache_salt":"x"}`,
		`{"model":"m","prompt":[[1],[2]],"n":2}`, `{"model":"m","x":{` + members(20) + `}}`,
		`{"model":"m","x":1e999}`, `{"model":"\ud83d\ude00"}`,
	} {
		f.Add(uint8(1), []byte(seed))
	}
	f.Fuzz(func(t *testing.T, ep uint8, body []byte) {
		all := openai.Endpoints()
		salt := ""
		if ep >= 128 {
			salt = "salt"
		}
		check(t, all[int(ep)%len(all)], body, salt)
	})
}
