package openai_test

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"tollgate/internal/admission"
	"tollgate/internal/limit"
	"tollgate/internal/openai"
)

func TestEveryReasonIsAnsweredByTheTable(t *testing.T) {
	type row struct {
		status              int
		typ, code, param    string
		retryAfter, noRetry bool
	}
	table := map[admission.Reason]row{
		admission.MissingKey:        {401, "invalid_request_error", "invalid_api_key", "", false, false},
		admission.MalformedKey:      {400, "invalid_request_error", "invalid_request", "", false, false},
		admission.InvalidKey:        {401, "invalid_request_error", "invalid_api_key", "", false, false},
		admission.NotAdmin:          {403, "invalid_request_error", "insufficient_permissions", "", false, false},
		admission.AddressRate:       {429, "rate_limit_error", "rate_limit_exceeded", "", true, false},
		admission.RequestRate:       {429, "rate_limit_error", "rate_limit_exceeded", "", true, false},
		admission.TokenRate:         {429, "rate_limit_error", "rate_limit_exceeded", "", true, false},
		admission.GlobalSlots:       {429, "rate_limit_error", "concurrency_limit_exceeded", "", true, false},
		admission.KeySlots:          {429, "rate_limit_error", "concurrency_limit_exceeded", "", true, false},
		admission.QuotaSpent:        {429, "insufficient_quota", "insufficient_quota", "", false, true},
		admission.ModelUnknown:      {404, "invalid_request_error", "model_not_found", "model", false, false},
		admission.BadRequest:        {400, "invalid_request_error", "invalid_request", "", false, false},
		admission.NotFound:          {404, "invalid_request_error", "not_found", "", false, true},
		admission.WrongMethod:       {405, "invalid_request_error", "method_not_allowed", "", false, true},
		admission.OtherProtocol:     {426, "invalid_request_error", "upgrade_required", "", false, true},
		admission.TooLarge:          {413, "invalid_request_error", "request_too_large", "", false, true},
		admission.KeyBodies:         {429, "rate_limit_error", "rate_limit_exceeded", "", true, false},
		admission.SlowBody:          {408, "invalid_request_error", "request_timeout", "", false, true},
		admission.UnsupportedMedia:  {415, "invalid_request_error", "unsupported_media_type", "", false, false},
		admission.BadAnswer:         {502, "server_error", "bad_engine_answer", "", false, true},
		admission.Unavailable:       {503, "server_error", "service_unavailable", "", true, false},
		admission.EngineUnavailable: {503, "server_error", "engine_unavailable", "", true, false},
		admission.Cancelled:         {503, "server_error", "service_unavailable", "", false, true},
	}
	sentences := map[string]admission.Reason{}
	for _, reason := range admission.Reasons() {
		want, ok := table[reason]
		if !ok {
			t.Errorf("%s: not in the table", reason)
			continue
		}
		r := openai.Denied(reason)
		if got := (row{r.Status, r.Type, r.Code, r.Param, r.RetryAfterSeconds, r.NoRetry}); got != want {
			t.Errorf("%s: got %+v, want %+v", reason, got, want)
		}
		if r.Message == "" || !strings.HasSuffix(r.Message, ".") || strings.Contains(r.Message, string(reason)+"_") {
			t.Errorf("%s: message %q", reason, r.Message)
		}
		if other, twice := sentences[r.Message]; twice && r.Status != http.StatusUnauthorized {
			t.Errorf("%s and %s have the same message", reason, other)
		}
		sentences[r.Message] = reason
	}
	if r := openai.Denied("a reason of tomorrow"); r.Status != http.StatusServiceUnavailable {
		t.Errorf("unknown reason: got %d, want 503", r.Status)
	}
}

func TestNobodyLearnsWhyAKeyIsRefused(t *testing.T) {
	_, unknownHeaders, unknown := openai.Answer(openai.ChatCompletions, &admission.DenialError{Reason: admission.InvalidKey})
	_, disabledHeaders, disabled := openai.Answer(openai.ChatCompletions, &admission.DenialError{
		Reason: admission.InvalidKey, Message: "disabled", Standing: admission.Standing{Requests: limit.Rate{Limit: 5}, Quota: limit.Rate{Limit: 9}},
	})
	if diff := cmp.Diff(string(unknown), string(disabled)); diff != "" {
		t.Errorf("bodies differ:\n%s", diff)
	}
	if diff := cmp.Diff(unknownHeaders, disabledHeaders); diff != "" {
		t.Errorf("headers differ:\n%s", diff)
	}
}

func TestAnswersCarryTheirHeaders(t *testing.T) {
	none := limit.Rate{Limit: limit.Unlimited}
	content := openai.Header{Name: "content-type", Value: "application/json"}
	for _, tt := range []struct {
		name   string
		denial admission.DenialError
		want   []openai.Header
	}{
		{
			"401",
			admission.DenialError{Reason: admission.MissingKey},
			[]openai.Header{content, {Name: "www-authenticate", Value: "Bearer"}},
		},
		{
			"address rate",
			admission.DenialError{Reason: admission.AddressRate, RetryAfter: 120 * time.Millisecond},
			[]openai.Header{content, {Name: "retry-after", Value: "1"}, {Name: "retry-after-ms", Value: "120"}},
		},
		{
			"requests",
			admission.DenialError{
				Reason: admission.RequestRate, RetryAfter: 6*time.Second + 1,
				Standing: admission.Standing{Requests: limit.Rate{Limit: 60, Remaining: 0, Reset: 6 * time.Minute}, Tokens: none, Quota: none},
			},
			[]openai.Header{
				content,
				{Name: "retry-after", Value: "7"},
				{Name: "retry-after-ms", Value: "6001"},
				{Name: "x-ratelimit-limit-requests", Value: "60"},
				{Name: "x-ratelimit-remaining-requests", Value: "0"},
				{Name: "x-ratelimit-reset-requests", Value: "6m0s"},
			},
		},
		{
			"tokens of a limit of zero",
			admission.DenialError{Reason: admission.TokenRate, RetryAfter: time.Second},
			[]openai.Header{
				content,
				{Name: "retry-after", Value: "1"},
				{Name: "retry-after-ms", Value: "1000"},
				{Name: "x-ratelimit-limit-tokens", Value: "0"},
				{Name: "x-ratelimit-remaining-tokens", Value: "0"},
				{Name: "x-ratelimit-reset-tokens", Value: "0s"},
			},
		},
		{
			"slots",
			admission.DenialError{Reason: admission.KeySlots, Standing: admission.Standing{Requests: none, Tokens: limit.Rate{Limit: 9, Remaining: 4, Reset: time.Second}}},
			[]openai.Header{
				content,
				{Name: "retry-after", Value: "1"},
				{Name: "retry-after-ms", Value: "1000"},
				{Name: "x-ratelimit-limit-tokens", Value: "9"},
				{Name: "x-ratelimit-remaining-tokens", Value: "4"},
				{Name: "x-ratelimit-reset-tokens", Value: "1s"},
			},
		},
		{
			"quota",
			admission.DenialError{Reason: admission.QuotaSpent, RetryAfter: time.Hour, Standing: admission.Standing{
				Requests: none, Tokens: none, Quota: limit.Rate{Limit: 500, Reset: 5*time.Hour - 1},
			}},
			[]openai.Header{
				content,
				{Name: "x-should-retry", Value: "false"},
				{Name: "x-quota-limit", Value: "500"},
				{Name: "x-quota-remaining", Value: "0"},
				{Name: "x-quota-reset", Value: "5h0m0s"},
			},
		},
		{
			"engine",
			admission.DenialError{Reason: admission.EngineUnavailable, RetryAfter: -time.Second},
			[]openai.Header{content, {Name: "retry-after", Value: "1"}, {Name: "retry-after-ms", Value: "1000"}},
		},
		{
			"model",
			admission.DenialError{Reason: admission.ModelUnknown},
			[]openai.Header{content},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, headers, _ := openai.Answer(openai.ChatCompletions, &tt.denial)
			if want := openai.Denied(tt.denial.Reason).Status; status != want {
				t.Errorf("got status %d, want %d", status, want)
			}
			if diff := cmp.Diff(tt.want, headers); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestResetTimesAreWrittenAsOpenAIWritesThem(t *testing.T) {
	none := limit.Rate{Limit: limit.Unlimited}
	for d, want := range map[time.Duration]string{
		-time.Second:                  "0s",
		0:                             "0s",
		time.Nanosecond:               "1ms",
		120 * time.Millisecond:        "120ms",
		time.Second:                   "1s",
		1500 * time.Millisecond:       "1.5s",
		time.Second + time.Nanosecond: "1.001s",
		59 * time.Second:              "59s",
		6 * time.Minute:               "6m0s",
		time.Hour + time.Second:       "1h0m1s",
	} {
		got := openai.LimitHeaders(admission.Standing{Requests: none, Tokens: limit.Rate{Limit: 1, Remaining: -3, Reset: d}, Quota: none})
		wantHeaders := []openai.Header{
			{Name: "x-ratelimit-limit-tokens", Value: "1"},
			{Name: "x-ratelimit-remaining-tokens", Value: "0"},
			{Name: "x-ratelimit-reset-tokens", Value: want},
		}
		if diff := cmp.Diff(wantHeaders, got); diff != "" {
			t.Errorf("%d ns (-want +got):\n%s", d, diff)
		}
	}
	endless := limit.Rate{Reset: math.MaxInt64}
	openai.LimitHeaders(admission.Standing{Requests: endless, Tokens: endless, Quota: endless})
	if got := openai.LimitHeaders(admission.Standing{Requests: none, Tokens: none, Quota: none}); len(got) != 0 {
		t.Errorf("without limits: got %v", got)
	}
}

func TestErrorBodiesHaveTheShapeOfTheirRoute(t *testing.T) {
	for _, tt := range []struct {
		name, got, want string
	}{
		{
			"openai", string(openai.Body(openai.ChatCompletions, "a \"b\"\n\x01é", "t", "p", "c")),
			`{"error":{"message":"a \"b\"\n\u0001é","type":"t","param":"p","code":"c"}}`,
		},
		{
			"openai nulls", string(openai.Body("", "m", "t", "", "")),
			`{"error":{"message":"m","type":"t","param":null,"code":null}}`,
		},
		{
			"anthropic", string(openai.Body(openai.Messages, "m", "invalid_request_error", "p", "invalid_request")),
			`{"type":"error","error":{"type":"invalid_request_error","message":"m"}}`,
		},
		{
			"denial", string(answer(openai.Completions, &admission.DenialError{Reason: admission.BadRequest, Message: "m", Param: "n"})),
			`{"error":{"message":"m","type":"invalid_request_error","param":"n","code":"invalid_request"}}`,
		},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func answer(ep openai.Endpoint, d *admission.DenialError) []byte {
	_, _, body := openai.Answer(ep, d)
	return body
}

func TestAnthropicClientsGetTheirOwnTypes(t *testing.T) {
	want := map[admission.Reason]string{
		admission.MissingKey: "authentication_error", admission.InvalidKey: "authentication_error",
		admission.MalformedKey: "invalid_request_error", admission.BadRequest: "invalid_request_error",
		admission.NotAdmin: "permission_error", admission.ModelUnknown: "not_found_error",
		admission.AddressRate: "rate_limit_error", admission.RequestRate: "rate_limit_error", admission.TokenRate: "rate_limit_error",
		admission.GlobalSlots: "rate_limit_error", admission.KeySlots: "rate_limit_error", admission.QuotaSpent: "rate_limit_error",
		admission.NotFound: "not_found_error", admission.WrongMethod: "invalid_request_error", admission.OtherProtocol: "invalid_request_error",
		admission.TooLarge:  "request_too_large",
		admission.KeyBodies: "rate_limit_error", admission.SlowBody: "timeout_error",
		admission.UnsupportedMedia: "invalid_request_error", admission.BadAnswer: "api_error",
		admission.Unavailable: "overloaded_error", admission.EngineUnavailable: "overloaded_error", admission.Cancelled: "overloaded_error",
	}
	for _, reason := range admission.Reasons() {
		for _, ep := range []openai.Endpoint{openai.Messages, openai.CountTokens} {
			var got struct {
				Type  string `json:"type"`
				Error struct {
					Type    string `json:"type"`
					Message string `json:"message"`
				} `json:"error"`
			}
			if err := json.Unmarshal(answer(ep, &admission.DenialError{Reason: reason}), &got, json.RejectUnknownMembers(true)); err != nil {
				t.Fatalf("%s: %v", reason, err)
			}
			if got.Type != "error" || got.Error.Type != want[reason] || got.Error.Message == "" {
				t.Errorf("%s on %s: got %+v, want type %s", reason, ep, got, want[reason])
			}
		}
	}
	for code, typ := range map[string]string{"timeout": "api_error", "not_found": "not_found_error", "request_too_large": "request_too_large"} {
		if body := string(openai.Body(openai.Messages, "m", "server_error", "", code)); !strings.Contains(body, `"`+typ+`"`) {
			t.Errorf("%s: got %s, want %s", code, body, typ)
		}
	}
}

func TestErrorBodiesAreBoundedAndValid(t *testing.T) {
	for _, message := range []string{
		strings.Repeat("é", 5000), "x" + strings.Repeat("😀", 5000), strings.Repeat("\x00\x7f\"\\\n", 5000), "\xff\xfe", "", "a\r\nb",
	} {
		for _, ep := range []openai.Endpoint{openai.ChatCompletions, openai.Messages} {
			body := jsontext.Value(openai.Body(ep, message, "t", "p", "c"))
			if !body.IsValid() || len(body) > 8<<10 || strings.Contains(string(body), "\ufffd") != (message == "\xff\xfe") {
				t.Errorf("%.10q: body of %d bytes, valid %v", message, len(body), body.IsValid())
			}
		}
	}
}

// TestRefusalsSayWhatToDo: the texts carry the numbers of the decision.
func TestRefusalsSayWhatToDo(t *testing.T) {
	rate := func(limited, left int64) limit.Rate { return limit.Rate{Limit: limited, Remaining: left} }
	midnight := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name   string
		denial admission.DenialError
		want   []string
		never  []string
	}{
		{"no key", admission.DenialError{Reason: admission.MissingKey}, []string{"Authorization: Bearer", "x-api-key"}, []string{"wrong"}},
		{"wrong key", admission.DenialError{Reason: admission.InvalidKey}, []string{"wrong"}, []string{"No API key"}},
		{
			"default key",
			admission.DenialError{Reason: admission.InvalidKey, DefaultKey: true},
			[]string{"default key", "own machine", "proxy", "until a key of your own exists"},
			nil,
		},
		{
			"model",
			admission.DenialError{Reason: admission.ModelUnknown, Model: "qwen3", Nearest: "Qwen/Qwen3"},
			[]string{"'qwen3'", "'Qwen/Qwen3'", "/v1/models"},
			nil,
		},
		{"unlike any model", admission.DenialError{Reason: admission.ModelUnknown, Model: "x"}, []string{"'x'"}, []string{"Did you mean"}},
		{
			"a long name",
			admission.DenialError{Reason: admission.ModelUnknown, Model: strings.Repeat("é", 400)},
			[]string{"éé...", "/v1/models"},
			[]string{strings.Repeat("é", 200)},
		},
		{
			"requests",
			admission.DenialError{
				Reason: admission.RequestRate, RetryAfter: 1500 * time.Millisecond,
				Standing: admission.Standing{Requests: rate(60, 0)},
			},
			[]string{"requests per minute", "limit 60", "used 60", "requested 1", "in 1.5s"},
			nil,
		},
		{
			"tokens",
			admission.DenialError{
				Reason: admission.TokenRate, RetryAfter: 12 * time.Second, Requested: 900,
				Standing: admission.Standing{Tokens: rate(20000, 509)},
			},
			[]string{"tokens per minute", "limit 20000", "used 19491", "requested 900", "in 12s"},
			nil,
		},
		{
			"tokens at the door",
			admission.DenialError{
				Reason: admission.TokenRate, RetryAfter: time.Second, Standing: admission.Standing{Tokens: rate(10, 0)},
			},
			[]string{"limit 10", "used 10"},
			[]string{"requested"},
		},
		{"address", admission.DenialError{Reason: admission.AddressRate, Cap: 20, RetryAfter: 50 * time.Millisecond}, []string{"limit 20 a second", "in 50ms"}, nil},
		{"slots", admission.DenialError{Reason: admission.KeySlots, Cap: 8}, []string{"limit 8"}, nil},
		{"all slots", admission.DenialError{Reason: admission.GlobalSlots, Cap: 64}, []string{"limit 64"}, nil},
		{
			"quota of a day",
			admission.DenialError{Reason: admission.QuotaSpent, Standing: admission.Standing{Quota: rate(5000, 0), QuotaResets: midnight}},
			[]string{"limit 5000", "used 5000", "2026-11-27T00:00:00Z"},
			nil,
		},
		{
			"quota for good",
			admission.DenialError{Reason: admission.QuotaSpent, Standing: admission.Standing{Quota: rate(5000, 0)}},
			[]string{"limit 5000", "administrator"},
			[]string{"resets"},
		},
	} {
		for _, ep := range []openai.Endpoint{openai.ChatCompletions, openai.Messages} {
			var got struct{ Error struct{ Message string } }
			if err := json.Unmarshal(answer(ep, &tt.denial), &got, json.MatchCaseInsensitiveNames(true)); err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !strings.Contains(got.Error.Message, want) {
					t.Errorf("%s on %s: %q does not say %q", tt.name, ep, got.Error.Message, want)
				}
			}
			for _, never := range tt.never {
				if strings.Contains(got.Error.Message, never) {
					t.Errorf("%s on %s: %q says %q", tt.name, ep, got.Error.Message, never)
				}
			}
		}
	}
}
