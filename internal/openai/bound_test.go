package openai_test

import (
	"testing"

	"tollgate/internal/openai"
)

func TestABoundTakesThePlaceOfTheClients(t *testing.T) {
	for _, c := range []struct {
		ep         openai.Endpoint
		body, want string
	}{
		{openai.ChatCompletions, `{"model":"m","messages":[]}`, `{"max_tokens":7,"model":"m","messages":[]}`},
		{openai.ChatCompletions, ` {"model":"m", "max_tokens": 100 }`, ` {"model":"m", "max_tokens": 7 }`},
		{openai.ChatCompletions, `{"max_tokens":null,"model":"m"}`, `{"max_tokens":7,"model":"m"}`},
		{openai.ChatCompletions, `{"max_tokens":9,"max_completion_tokens":8.0,"model":"m"}`, `{"max_tokens":9,"max_completion_tokens":7,"model":"m"}`},
		{openai.ChatCompletions, `{"max_tokens":9,"max_completion_tokens":null,"model":"m"}`, `{"max_tokens":7,"max_completion_tokens":null,"model":"m"}`},
		{openai.Completions, `{"model":"m","prompt":"{\"max_tokens\":1}"}`, `{"max_tokens":7,"model":"m","prompt":"{\"max_tokens\":1}"}`},
		{openai.Messages, `{"model":"m","max_tokens":4096}`, `{"model":"m","max_tokens":7}`},
		{openai.Responses, `{"model":"m","input":"a","max_tokens":5}`, `{"max_output_tokens":7,"model":"m","input":"a","max_tokens":5}`},
		{openai.Responses, `{"model":"m","max_output_tokens":1e3}`, `{"model":"m","max_output_tokens":7}`},
	} {
		got, err := openai.Bound(c.ep, []byte(c.body), 7, openai.Limits{})
		if err != nil || string(got) != c.want {
			t.Errorf("%s %s:\n got %s, %v\nwant %s", c.ep, c.body, got, err, c.want)
		}
		if _, err := openai.Parse(c.ep, got, openai.Limits{}); err != nil {
			t.Errorf("%s does not parse: %v", got, err)
		}
	}
}
