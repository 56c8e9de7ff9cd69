package input_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

func TestBodiesThatAreWrong(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	const messages = `"messages":[{"role":"user","content":"hi"}]`
	bad := func(param string) stack.Problem {
		return stack.Problem{Status: 400, Type: "invalid_request_error", Code: "invalid_request", Param: param}
	}
	chat := func(more string) string { return `{"model":"tiny",` + messages + more + `}` }
	for name, c := range map[string]struct {
		body string
		want stack.Problem
	}{
		"empty":                    {"", bad("")},
		"blank":                    {"  \n", bad("")},
		"not JSON":                 {"model=tiny", bad("")},
		"cut":                      {`{"model":"tiny","messa`, bad("")},
		"two documents":            {chat("") + chat(""), bad("")},
		"array":                    {"[" + chat("") + "]", bad("")},
		"string":                   {`"tiny"`, bad("")},
		"null":                     {"null", bad("")},
		"comment":                  {"/* x */" + chat(""), bad("")},
		"trailing comma":           {`{"model":"tiny",` + messages + `,}`, bad("")},
		"byte order mark":          {"\xef\xbb\xbf" + chat(""), bad("")},
		"duplicate model":          {`{"model":"tiny","model":"secret",` + messages + `}`, bad("model")},
		"Model beside model":       {`{"model":"tiny","Model":"secret",` + messages + `}`, bad("model")},
		"Model alone":              {`{"Model":"tiny",` + messages + `}`, bad("model")},
		"long s in stream":         {chat(`,"ſtream":true`), bad("stream")},
		"Max_Tokens":               {chat(`,"Max_Tokens":5`), bad("max_tokens")},
		"stream_options variant":   {chat(`,"stream":true,"stream_options":{"Include_Usage":true}`), bad("stream_options")},
		"duplicate key deep":       {chat(`,"metadata":{"a":1,"a":2}`), bad("")},
		"bad UTF-8":                {`{"model":"tiny","messages":[{"role":"user","content":"` + "\xff\xfe" + `"}]}`, bad("")},
		"lone surrogate":           {chat(`,"user":"\ud800"`), bad("")},
		"NaN":                      {chat(`,"temperature":NaN`), bad("")},
		"Infinity":                 {chat(`,"temperature":-Infinity`), bad("")},
		"too deep":                 {chat(`,"metadata":` + strings.Repeat("[", 100) + strings.Repeat("]", 100)), bad("")},
		"missing model":            {`{` + messages + `}`, bad("model")},
		"model null":               {`{"model":null,` + messages + `}`, bad("model")},
		"model a number":           {`{"model":7,` + messages + `}`, bad("model")},
		"n of 1000":                {chat(`,"n":1000`), bad("n")},
		"n of 0":                   {chat(`,"n":0`), bad("n")},
		"n negative":               {chat(`,"n":-1`), bad("n")},
		"n a string":               {chat(`,"n":"2"`), bad("n")},
		"n and best_of":            {chat(`,"best_of":1000`), bad("best_of")},
		"stream a number":          {chat(`,"stream":1`), bad("stream")},
		"stream a string":          {chat(`,"stream":"true"`), bad("stream")},
		"include_usage a number":   {chat(`,"stream":true,"stream_options":{"include_usage":1}`), bad("stream_options")},
		"stream_options a list":    {chat(`,"stream":true,"stream_options":[]`), bad("stream_options")},
		"max_tokens a fraction":    {chat(`,"max_tokens":1.5`), bad("max_tokens")},
		"max_tokens beyond int64":  {chat(`,"max_tokens":1e30`), bad("max_tokens")},
		"max_tokens negative":      {chat(`,"max_tokens":-1`), bad("max_tokens")},
		"beam search":              {chat(`,"use_beam_search":true`), bad("use_beam_search")},
		"an unknown model":         {`{"model":"secret",` + messages + `}`, stack.Problem{Status: 404, Type: "invalid_request_error", Code: "model_not_found", Param: "model"}},
		"a model that is a path":   {`{"model":"../tiny",` + messages + `}`, stack.Problem{Status: 404, Type: "invalid_request_error", Code: "model_not_found", Param: "model"}},
		"a model with other case":  {`{"model":"Tiny",` + messages + `}`, stack.Problem{Status: 404, Type: "invalid_request_error", Code: "model_not_found", Param: "model"}},
		"a model with a zero byte": {`{"model":"tiny\u0000",` + messages + `}`, stack.Problem{Status: 404, Type: "invalid_request_error", Code: "model_not_found", Param: "model"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, client := range []*http.Client{s.HTTP1, s.HTTP2} {
				a := s.Do(client, "POST", stack.ChatPath, c.body, "Authorization", "Bearer "+stack.Key, "Content-Type", "application/json")
				got := stack.Refusal(t, a)
				if p := c.want.Param; strings.HasPrefix(got.Param, p+".") || strings.HasPrefix(got.Param, p+"[") {
					got.Param = p // names the place more closely
				}
				if got != c.want {
					t.Errorf("got %+v, want %+v: %.300s", got, c.want, a.Bytes)
				}
			}
		})
	}
	var prompts strings.Builder
	for range 100 {
		prompts.WriteString(`"a",`)
	}
	a := s.Post("/v1/completions", `{"model":"tiny","prompt":[`+strings.TrimSuffix(prompts.String(), ",")+`]}`)
	stack.WantProblem(t, a, bad("prompt"))
	if got := s.Sim.Stats().Requests; got != 0 {
		t.Errorf("the engine saw %d of them", got)
	}
	if n := len(s.Records()); n != 0 {
		t.Errorf("the ledger has %d records of requests that were never sent", n)
	}
	s.Idle(2 * time.Second)
}

var tooLarge = stack.Problem{Status: 413, Type: "invalid_request_error", Code: "request_too_large"}

// zeros is a body of n bytes that costs no memory.
func zeros(n int64) io.Reader { return io.LimitReader(endless{}, n) }

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestBodiesThatAreTooLarge(t *testing.T) {
	s := stack.Start(t, stack.Options{Config: "rate_limit: {requests_per_minute: 1000}"})
	for name, c := range map[string]struct {
		client *http.Client
		length int64 // -1: chunked
	}{
		"h1":             {s.HTTP1, 33 << 20},
		"h2":             {s.HTTP2, 33 << 20},
		"h1 chunked":     {s.HTTP1, -1},
		"h2 no length":   {s.HTTP2, -1},
		"one byte above": {s.HTTP1, 32<<20 + 1},
	} {
		t.Run(name, func(t *testing.T) {
			n := c.length
			if n < 0 {
				n = 33 << 20
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+stack.ChatPath, zeros(n))
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = c.length
			req.Header.Set("Authorization", "Bearer "+stack.Key)
			req.Header.Set("Content-Type", "application/json")
			resp, err := c.client.Do(req)
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			defer func() { _ = resp.Body.Close() }()
			a := &stack.Answer{Response: resp}
			a.Bytes, a.Err = io.ReadAll(resp.Body)
			stack.WantProblem(t, a, tooLarge)
		})
	}
	s.Idle(2 * time.Second)
	// Whole and just inside: it is read, checked, and refused for what it says.
	body := `{"model":"tiny","messages":[],"x":"` + strings.Repeat("a", 32<<20-38) + `"}`
	for _, c := range []*http.Client{s.HTTP1, s.HTTP2} {
		if a := s.Do(c, "POST", stack.ChatPath, body, "Authorization", "Bearer "+stack.Key); a.StatusCode == http.StatusRequestEntityTooLarge || a.StatusCode >= 500 {
			t.Errorf("%d bytes: got %d %.200s", len(body), a.StatusCode, a.Bytes)
		}
	}
	s.Idle(2 * time.Second)
}

func TestABodyThatIsTooSlow(t *testing.T) {
	s := stack.Start(t, stack.Options{Config: "request: {body_timeout: 1s}\nrate_limit: {concurrent_per_key: 1, tokens_per_minute: 100000}"})
	for path, want := range map[string]string{stack.ChatPath: "", "/v1/messages": "timeout_error"} {
		began := time.Now()
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n{", path, stack.Key)
		stack.Eventually(t, 900*time.Millisecond, "the slot to be taken", func() bool { return s.Metric("tollgate_leases_live") == 1 })
		ctx, cancel := context.WithCancel(t.Context())
		go drip(ctx, conn)
		a := readAnswer(t, conn)
		cancel()
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s: answered after %v", path, took)
		}
		if want != "" {
			wantAnthropic(t, a, 408, want)
		} else {
			stack.WantProblem(t, a, stack.Problem{Status: 408, Type: "invalid_request_error", Code: "request_timeout"})
		}
		s.Idle(2 * time.Second)
	}
}
