package openai_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"tollgate/internal/openai"
)

var limits = openai.Limits{MaxN: 16, MaxPrompts: 64}

func chat(t *testing.T, body string) *openai.Request {
	t.Helper()
	return parse(t, openai.ChatCompletions, body, limits)
}

func parse(t *testing.T, ep openai.Endpoint, body string, lim openai.Limits) *openai.Request {
	t.Helper()
	r, err := openai.Parse(ep, []byte(body), lim)
	if err != nil {
		t.Fatalf("Parse(%s, %s): %v", ep, body, err)
	}
	return r
}

// refused wants a 400 and returns it.
func refused(t *testing.T, ep openai.Endpoint, body string) *openai.BadRequestError {
	t.Helper()
	r, err := openai.Parse(ep, []byte(body), limits)
	var bad *openai.BadRequestError
	if !errors.As(err, &bad) {
		t.Fatalf("Parse(%s, %.200q): got %v, error %v, want a BadRequestError", ep, body, r, err)
	}
	if r != nil || len(bad.Message) > 256 || bad.Message == "" {
		t.Errorf("got request %v, message of %d bytes: %s", r, len(bad.Message), bad.Message)
	}
	return bad
}

func TestDocumentsThatReadersDisagreeOnAreRefused(t *testing.T) {
	nest := func(n int) string {
		return `{"model":"m","x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
	}
	for name, body := range map[string]string{
		"empty":                     "",
		"only spaces":               "  \n",
		"array":                     `[{"model":"m"}]`,
		"string":                    `"model"`,
		"null":                      `null`,
		"truncated":                 `{"model":"m"`,
		"truncated string":          `{"model":"m`,
		"truncated after comma":     `{"model":"m",`,
		"truncated after colon":     `{"model":`,
		"truncated name":            `{"mod`,
		"trailing comma":            `{"model":"m",}`,
		"trailing comma in array":   `{"model":"m","stop":["a",]}`,
		"leading comma":             `{,"model":"m"}`,
		"two commas":                `{"model":"m",,"n":1}`,
		"no colon":                  `{"model" "m"}`,
		"no comma":                  `{"model":"m" "n":1}`,
		"single quotes":             `{'model':'m'}`,
		"bare name":                 `{model:"m"}`,
		"second document":           `{"model":"m"}{"model":"n"}`,
		"trailing garbage":          `{"model":"m"} x`,
		"trailing NUL":              "{\"model\":\"m\"}\x00",
		"BOM":                       "\xef\xbb\xbf{\"model\":\"m\"}",
		"UTF-16":                    "\xff\xfe{\x00}\x00",
		"line comment":              "{\"model\":\"m\"// x\n}",
		"block comment":             `{"model":"m"/* x */}`,
		"NaN":                       `{"model":"m","temperature":NaN}`,
		"Infinity":                  `{"model":"m","temperature":Infinity}`,
		"-Infinity":                 `{"model":"m","temperature":-Infinity}`,
		"infinity by exponent":      `{"model":"m","temperature":1e999}`,
		"integer beyond float64":    `{"model":"m","seed":` + strings.Repeat("9", 5000) + `}`,
		"leading zero":              `{"model":"m","n":01}`,
		"leading plus":              `{"model":"m","n":+1}`,
		"bare minus":                `{"model":"m","n":-}`,
		"bare point":                `{"model":"m","n":1.}`,
		"bare exponent":             `{"model":"m","n":1e}`,
		"hexadecimal":               `{"model":"m","n":0x1}`,
		"True":                      `{"model":"m","stream":True}`,
		"cut literal":               `{"model":"m","stream":tru`,
		"depth 65":                  nest(64),
		"depth 10000":               nest(10_000),
		"depth 10000 unclosed":      `{"model":` + strings.Repeat("[", 10_000),
		"depth 10000 of objects":    `{"a":` + strings.Repeat(`{"a":`, 10_000),
		"closing mismatch":          `{"model":"m","x":[}`,
		"invalid UTF-8":             "{\"model\":\"m\",\"x\":\"\xff\"}",
		"overlong UTF-8":            "{\"model\":\"m\",\"x\":\"\xc0\xae\"}",
		"surrogate in UTF-8":        "{\"model\":\"m\",\"x\":\"\xed\xa0\x80\"}",
		"cut UTF-8":                 "{\"model\":\"m\",\"x\":\"\xe4\xb8\"}",
		"lone high surrogate":       `{"model":"m","x":"\ud83d"}`,
		"lone low surrogate":        `{"model":"m","x":"\ude00"}`,
		"two high surrogates":       `{"model":"m","x":"\ud83d\ud83d"}`,
		"bad escape":                `{"model":"m","x":"\x41"}`,
		"cut escape":                `{"model":"m","x":"\u00`,
		"bad hex":                   `{"model":"m","x":"\u00g0"}`,
		"bare newline in string":    "{\"model\":\"m\",\"x\":\"a\nb\"}",
		"NUL in string":             "{\"model\":\"m\",\"x\":\"a\x00b\"}",
		"duplicate model":           `{"model":"allowed","model":"secret"}`,
		"duplicate escaped model":   `{"model":"allowed","mo\u0064el":"secret"}`,
		"duplicate stream":          `{"model":"m","stream":false,"stream":true}`,
		"duplicate unknown":         `{"model":"m","x":1,"x":1}`,
		"duplicate in messages":     `{"model":"m","messages":[{"role":"user","content":"a","content":"b"}]}`,
		"duplicate deep":            `{"model":"m","a":[[{"b":{"c":1,"c":2}}]]}`,
		"duplicate empty name":      `{"model":"m","":1,"":2}`,
		"duplicate in options":      `{"model":"m","stream":true,"stream_options":{"include_usage":true,"include_usage":false}}`,
		"duplicate among many":      `{"model":"m","logit_bias":{` + members(1000) + `,"500":1}}`,
		"duplicate after a table":   `{"model":"m","x":[{` + members(100) + `},{` + members(9) + `,"8":1}]}`,
		"duplicate removed":         `{"model":"m","priority":1,"priority":2}`,
		"too many names":            `{"model":"m","logit_bias":{` + members(300_000) + `}}`,
		"gzip":                      "\x1f\x8b\x08\x00\x00",
		"form":                      "model=m&n=1",
		"no-break space":            "{\u00a0\"model\":\"m\"}",
		"form feed between members": "{\f\"model\":\"m\"}",
	} {
		t.Run(name, func(t *testing.T) {
			for _, ep := range routesFor(body) {
				refused(t, ep, body)
			}
		})
	}
}

// routesFor is every route, or one where the body is so long that it takes its
// time.
func routesFor(body string) []openai.Endpoint {
	if len(body) > 1<<20 {
		return openai.Endpoints()[:1]
	}
	return openai.Endpoints()
}

// members writes n members named "0" to n-1.
func members(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Quote(strconv.Itoa(i)) + ":1")
	}
	return b.String()
}

func TestStrictnessDoesNotRefuseWhatIsValid(t *testing.T) {
	for name, body := range map[string]string{
		"depth 64":              `{"model":"m","x":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `}`,
		"a large vocabulary":    `{"model":"m","logit_bias":{` + members(200_000) + `}}`,
		"same name in siblings": `{"model":"m","x":[{"a":1},{"a":2}],"a":{"a":{"a":1}}}`,
		"spaces everywhere":     " {\t\"model\" :\r\n\"m\" , \"x\" : [ 1 , { } , [ ] ] }\n",
		"all escapes":           `{"model":"m","x":"\"\\\/\b\f\n\r\t\u0041\u00e9\u4e2d\ud83d\ude00"}`,
		"plain UTF-8":           `{"model":"m","x":"é中😀","é":1}`,
		"all numbers":           `{"model":"m","x":[0,-0,1,-1,1.5,1e3,1E-3,1.5e+10,-0.0,12345678901234567890]}`,
		"nested capitals":       `{"model":"m","metadata":{"Model":"x","Stream":1}}`,
		"unknown fields":        `{"model":"m","unknown":{},"x-y":1,"MODEL_NAME":2,"modèle":3}`,
		"nulls":                 `{"model":"m","stream":null,"stream_options":null,"n":null,"max_tokens":null,"best_of":null,"use_beam_search":null,"background":null,"encoding_format":null,"echo":null,"store":null,"max_completion_tokens":null}`,
		"store":                 `{"model":"m","store":true}`,
		"max_tokens 0":          `{"model":"m","max_tokens":0,"echo":true}`,
	} {
		t.Run(name, func(t *testing.T) {
			for _, ep := range routesFor(body) {
				r := parse(t, ep, body, limits)
				if string(r.Body) != body {
					t.Errorf("%s: the body changed: %.200s", ep, r.Body)
				}
			}
		})
	}
}

func TestBadParametersAreNamed(t *testing.T) {
	type row struct{ param, members string }
	for _, tt := range []row{
		{"model", ``},
		{"model", `"model":null`},
		{"model", `"model":""`},
		{"model", `"model":1`},
		{"model", `"model":["m"]`},
		{"model", `"model":{"a":1}`},
		{"model", `"Model":"m"`},
		{"model", `"model":"allowed","Model":"secret"`},
		{"model", `"model":"allowed","MODEL":"secret"`},
		{"model", `"model":"allowed","\u004dodel":"secret"`},
		{"model", `"model":"allowed","model":"secret"`},
		{"stream", `"model":"m","stream":1`},
		{"stream", `"model":"m","stream":"true"`},
		{"stream", `"model":"m","stream":[true]`},
		{"stream", `"model":"m","Stream":true`},
		{"stream", `"model":"m","ſtream":true`},
		{"stream", `"model":"m","\u017ftream":true`},
		{"stream", `"model":"m","stream":false,"STREAM":true`},
		{"stream", `"model":"m","stream":true,"stream":false`},
		{"use_beam_search", `"model":"m","uſe_beam_search":true`},
		{"max_tokens", `"model":"m","max_to\u212aens":5`},
		{"max_tokens", `"model":"m","MAX_TOKENS":5`},
		{"include", `"model":"m","İnclude":[]`},
		{"temperature", `"model":"m","Temperature":1`},
		{"cache_salt", `"model":"m","Cache_Salt":"x"`},
		{"priority", `"model":"m","Priority":1`},
		{"n", `"model":"m","n":0`},
		{"n", `"model":"m","n":-1`},
		{"n", `"model":"m","n":17`},
		{"n", `"model":"m","n":16384`},
		{"n", `"model":"m","n":"2"`},
		{"n", `"model":"m","n":1.5`},
		{"n", `"model":"m","n":17.0`},
		{"n", `"model":"m","n":1e-1`},
		{"n", `"model":"m","n":true`},
		{"n", `"model":"m","n":99999999999999999999`},
		{"n", `"model":"m","N":2`},
		{"best_of", `"model":"m","best_of":2`},
		{"best_of", `"model":"m","best_of":"1"`},
		{"max_tokens", `"model":"m","max_tokens":-1`},
		{"max_tokens", `"model":"m","max_tokens":1.5`},
		{"max_tokens", `"model":"m","max_tokens":"5"`},
		{"max_tokens", `"model":"m","max_tokens":1000000000000000000`},
		{"max_tokens", `"model":"m","max_tokens":2147483648`},
		{"max_tokens", `"model":"m","max_tokens":1e18`},
		{"max_completion_tokens", `"model":"m","max_completion_tokens":-5`},
		{"max_completion_tokens", `"model":"m","max_completion_tokens":{}`},
		{"max_output_tokens", `"model":"m","max_output_tokens":false`},
		{"use_beam_search", `"model":"m","use_beam_search":true`},
		{"use_beam_search", `"model":"m","use_beam_search":1`},
		{"background", `"model":"m","background":true`},
		{"background", `"model":"m","background":"true"`},
		{"store", `"model":"m","store":"yes"`},
		{"encoding_format", `"model":"m","encoding_format":"bytes"`},
		{"encoding_format", `"model":"m","encoding_format":"bytes_only"`},
		{"encoding_format", `"model":"m","encoding_format":"b\u0079tes"`},
		{"encoding_format", `"model":"m","encoding_format":1`},
		{"stream_options", `"model":"m","stream_options":{"include_usage":true}`},
		{"stream_options", `"model":"m","stream":null,"stream_options":{}`},
		{"stream_options", `"model":"m","stream_options":{},"stream":false`},
		{"stream_options", `"model":"m","stream":true,"stream_options":true`},
		{"stream_options", `"model":"m","stream":true,"stream_options":[]`},
		{"stream_options", `"model":"m","stream":true,"Stream_Options":{}`},
		{"stream_options", `"model":"m","stream":true,"stream_options":{},"ſtream_options":{}`},
		{"stream_options.include_usage", `"model":"m","stream":true,"stream_options":{"include_usage":1}`},
		{"stream_options.include_usage", `"model":"m","stream":true,"stream_options":{"Include_Usage":false}`},
		{"stream_options.include_usage", `"model":"m","stream":true,"stream_options":{"include_usage":true,"include_uſage":false}`},
		{"stream_options.continuous_usage_stats", `"model":"m","stream":true,"stream_options":{"continuous_usage_stats":"no"}`},
		{"stream_options.continuous_usage_stats", `"model":"m","stream":true,"stream_options":{"CONTINUOUS_usage_stats":true}`},
	} {
		t.Run(tt.members, func(t *testing.T) {
			if got := refused(t, openai.ChatCompletions, "{"+tt.members+"}").Param; got != tt.param {
				t.Errorf("got param %q, want %q", got, tt.param)
			}
		})
	}
}

func TestWholeNumbersMayHaveAPointOrAnExponent(t *testing.T) {
	for _, body := range []string{
		`{"model":"m","n":2.0,"max_tokens":1e3}`, `{"model":"m","n":2e0,"max_completion_tokens":1000.0}`,
		`{"model":"m","n":20E-1,"max_tokens":5,"max_completion_tokens":1.0e+3}`,
	} {
		req, err := openai.Parse(openai.ChatCompletions, []byte(body), limits)
		if err != nil || req.N != 2 || req.MaxTokens != 1000 {
			t.Errorf("%s: got %+v, %v, want n 2 and 1000 tokens", body, req, err)
		}
		if err == nil && string(req.Body) != body {
			t.Errorf("%s was rewritten to %s", body, req.Body)
		}
	}
	for body, want := range map[string]int{`[1,2.0,3e0]`: 1, `[[1.0],[2]]`: 2} {
		req, err := openai.Parse(openai.Completions, []byte(`{"model":"m","prompt":`+body+`}`), limits)
		if err != nil || req.Prompts != want {
			t.Errorf("token ids %s: got %+v, %v, want %d prompts", body, req, err, want)
		}
	}
}

func TestBadPromptsAreNamed(t *testing.T) {
	list := func(item string, n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + "]"
	}
	for _, prompt := range []string{
		`[]`, `1`, `true`, `{}`, `["a",1]`, `[1,"a"]`, `[[1],"a"]`, `[1.5]`, `[null]`, `[{}]`, `[[1],2]`,
		list(`"a"`, 65), list(`[1]`, 65),
	} {
		body := `{"model":"m","prompt":` + prompt + `}`
		if got := refused(t, openai.Completions, body).Param; got != "prompt" {
			t.Errorf("%.40s: got param %q, want prompt", prompt, got)
		}
	}
	body := `{"model":"m","prompt":` + list(`"a"`, 60) + `,"prompt_embeds":` + list(`"AA=="`, 5) + `}`
	if got := refused(t, openai.Completions, body).Param; got != "prompt" {
		t.Errorf("prompts and embeddings: got param %q, want prompt", got)
	}
}

func TestErrorsQuoteNothingOfThePrompt(t *testing.T) {
	const secret = "canary-7f3a"
	for _, body := range []string{
		`{"model":"m","messages":"` + secret + "\x01" + `"}`,
		`{"model":"m","` + secret + `":1,"` + secret + `":2}`,
		`{"model":"m","x":{"` + secret + `":1,"` + secret + `":2}}`,
		`{"model":"m","stream":"` + secret + `"}`,
		`{"model":"m","n":"` + secret + `"}`,
		`{"model":["` + secret + `"]}`,
		`{"model":"m","encoding_format":["` + secret + `"]}`,
		`{"model":"m","prompt":{"a":"` + secret + `"}}`,
		`{"model":"m"} ` + secret,
		secret,
	} {
		for _, ep := range openai.Endpoints() {
			_, err := openai.Parse(ep, []byte(body), limits)
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error quotes the body: %v", ep, err)
			}
		}
	}
}

func TestModelIsHandedOnAsItWasWritten(t *testing.T) {
	for written, want := range map[string]string{
		`../../etc`: "../../etc", `/models/x`: "/models/x", `a\u0000b`: "a\x00b", `m\u002e\u002e`: "m..", `\ud83d\ude00`: "😀",
	} {
		if got := chat(t, `{"model":"`+written+`"}`).Model; got != want {
			t.Errorf("%s: got %q, want %q", written, got, want)
		}
	}
}

func TestEmbeddedPromptsCount(t *testing.T) {
	for embeds, want := range map[string]int{`"AA=="`: 2, `["AA==","AA=="]`: 3, `[]`: 2, `null`: 1} {
		r := parse(t, openai.Completions, `{"model":"m","prompt":"a","prompt_embeds":`+embeds+`}`, limits)
		if r.Prompts != want {
			t.Errorf("%s: got %d prompts, want %d", embeds, r.Prompts, want)
		}
	}
}

func TestManyEmbeddingInputsPassWhereManyPromptsDoNot(t *testing.T) {
	inputs := func(n int) string {
		return `{"model":"m","input":["a"` + strings.Repeat(`,"a"`, n-1) + `]}`
	}
	if got := parse(t, openai.Embeddings, inputs(2048), limits).Prompts; got != 2048 {
		t.Errorf("got %d prompts, want 2048", got)
	}
	if got := refused(t, openai.Embeddings, inputs(1<<16+1)).Param; got != "input" {
		t.Errorf("got param %q, want input", got)
	}
}

func TestZeroLimitsAllowOne(t *testing.T) {
	parse(t, openai.Completions, `{"model":"m","n":1,"prompt":"a"}`, openai.Limits{})
	if _, err := openai.Parse(openai.Completions, []byte(`{"model":"m","n":2}`), openai.Limits{}); err == nil {
		t.Error("n above 1 passed without a limit")
	}
}

func TestARewrittenBodyLiesInTheMemoryGiven(t *testing.T) {
	var asked []int
	backing := make([]byte, 1024)
	lim := limits
	lim.Buffer = func(size int) []byte {
		asked = append(asked, size)
		return backing[:0]
	}
	r := parse(t, openai.ChatCompletions, `{"model":"m","messages":[],"stream":true}`, lim)
	if len(asked) != 1 || asked[0] != len(r.Body) || &r.Body[0] != &backing[0] {
		t.Errorf("asked for %d, the body has %d bytes", asked, len(r.Body))
	}
	asked = nil
	if r := parse(t, openai.ChatCompletions, `{"model":"m","messages":[]}`, lim); len(asked) != 0 || len(r.Body) == 0 {
		t.Errorf("asked for %d, where nothing is rewritten", asked)
	}
}
