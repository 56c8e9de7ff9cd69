package vllmsim_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"tollgate/internal/vllmsim"
)

// schemas are what clients generate (pydantic, zod), and what a value must have.
var schemas = map[string]struct {
	schema string
	fits   func(v any) bool
}{
	"required members, an enum and a reference": {
		`{"$defs": {"Colour": {"enum": ["red", "blue"], "type": "string"}}, "type": "object", "additionalProperties": false,
		  "properties": {"name": {"type": "string"}, "n": {"type": "integer", "minimum": 7}, "c": {"$ref": "#/$defs/Colour"}, "opt": {"type": "string"}},
		  "required": ["name", "n", "c"]}`,
		func(v any) bool {
			o := v.(map[string]any)
			_, text := o["name"].(string)
			return len(o) == 3 && text && o["n"].(float64) >= 7 && o["c"] == "red"
		},
	},
	"a list of objects": {
		`{"type": "object", "properties": {"steps": {"type": "array", "minItems": 2, "items": {"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]}}}, "required": ["steps"]}`,
		func(v any) bool {
			steps := v.(map[string]any)["steps"].([]any)
			return len(steps) == 2 && steps[1].(map[string]any)["x"] == true
		},
	},
	"a type or null": {
		`{"type": "object", "properties": {"a": {"anyOf": [{"type": "number", "exclusiveMinimum": 3}, {"type": "null"}]}, "b": {"type": ["string", "null"]}}, "required": ["a", "b"]}`,
		func(v any) bool {
			o := v.(map[string]any)
			_, text := o["b"].(string)
			return o["a"].(float64) > 3 && text
		},
	},
	"a schema that names itself": {
		`{"$defs": {"Node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}}, "required": ["next"]}}, "$ref": "#/$defs/Node"}`,
		func(v any) bool { _, ok := v.(map[string]any)["next"]; return ok },
	},
	"formats, patterns and lengths": {
		`{"type": "object", "properties": {"day": {"type": "string", "format": "date"}, "code": {"type": "string", "pattern": "^[A-Z]{2}-\\d{3}$"}, "short": {"type": "string", "maxLength": 3}, "long": {"type": "string", "minLength": 30}},
		  "required": ["day", "code", "short", "long"]}`,
		func(v any) bool {
			o := v.(map[string]any)
			return o["day"] == "2026-01-01" && regexp.MustCompile(`^[A-Z]{2}-\d{3}$`).MatchString(o["code"].(string)) &&
				len(o["short"].(string)) <= 3 && len(o["long"].(string)) >= 30
		},
	},
	"bounds": {
		`{"type": "object", "properties": {"a": {"type": "integer", "maximum": -4}, "b": {"type": "number", "minimum": 0, "maximum": 0.25}, "c": {"type": "integer", "multipleOf": 5, "exclusiveMinimum": 10}, "d": {"const": 9}}, "required": ["a", "b", "c", "d"]}`,
		func(v any) bool {
			o := v.(map[string]any)
			b, c := o["b"].(float64), o["c"].(float64)
			return o["a"].(float64) <= -4 && b >= 0 && b <= 0.25 && c > 10 && int(c)%5 == 0 && o["d"] == 9.0
		},
	},
	"all of": {
		`{"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}, {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]}]}`,
		func(v any) bool { return len(v.(map[string]any)) == 2 },
	},
}

// TestStructuredAnswersFitTheirSchema asks for each on every route that takes one.
func TestStructuredAnswersFitTheirSchema(t *testing.T) {
	_, srv := start(t, vllmsim.Options{ToolParser: true})
	for name, c := range schemas {
		t.Run(name, func(t *testing.T) {
			for route, body := range map[string]string{
				"/v1/chat/completions": `{"model": "simulated", "messages": [{"role": "user", "content": "hi"}], "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": ` + c.schema + `}}}`,
				"/v1/completions":      `{"model": "simulated", "prompt": "hi", "max_tokens": 900, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": ` + c.schema + `}}}`,
				"/v1/responses":        `{"model": "simulated", "input": "hi", "text": {"format": {"type": "json_schema", "name": "x", "schema": ` + c.schema + `}}}`,
			} {
				text, finish := answerText(t, srv, route, body)
				var v any
				if err := json.Unmarshal([]byte(text), &v); err != nil {
					t.Fatalf("%s: %v in %s", route, err, text)
				}
				if !c.fits(v) {
					t.Errorf("%s: %s does not fit", route, text)
				}
				if finish != "stop" && finish != "completed" {
					t.Errorf("%s: finished by %s", route, finish)
				}
			}
		})
	}
	if text, _ := answerText(t, srv, "/v1/chat/completions", `{"model": "simulated", "messages": [{"role": "user", "content": "hi"}], "response_format": {"type": "json_object"}}`); !strings.HasPrefix(text, "{") {
		t.Errorf("json_object: got %s", text)
	}
	if text, finish := answerText(t, srv, "/v1/chat/completions", `{"model": "simulated", "max_tokens": 3, "messages": [{"role": "user", "content": "hi"}], "response_format": {"type": "json_object"}}`); finish != "length" {
		t.Errorf("a bounded object: got %s by %s, want it cut", text, finish)
	}
}

// answerText is the text of an answer on any of the routes, and how it finished.
func answerText(t *testing.T, srv *httptest.Server, route, body string) (text, finish string) {
	t.Helper()
	r := send(t, srv, route, body)
	var got struct {
		Status  string
		Choices []struct {
			Text    string
			Message struct{ Content string }
			Finish  string `json:"finish_reason"`
		}
		Output []struct{ Content []struct{ Text string } }
	}
	if r.status != http.StatusOK {
		t.Fatalf("%s: %d %s", route, r.status, r.body())
	}
	if err := json.Unmarshal([]byte(r.body()), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Output) > 0 {
		return got.Output[0].Content[0].Text, got.Status
	}
	return got.Choices[0].Text + got.Choices[0].Message.Content, got.Choices[0].Finish
}

// TestToolsAreTaken: what coding agents send is answered in words, whatever their
// tools look like.
func TestToolsAreTaken(t *testing.T) {
	_, srv := start(t, vllmsim.Options{ToolParser: true})
	const tool = `{"type": "function", "function": {"name": "add", "parameters": {"type": ["object"], "properties": {"a": {"anyOf": [{"type": "integer"}]}}, "required": ["a"]}}}`
	for _, rest := range []string{
		`"tools": [` + tool + `]`,
		`"tools": [` + tool + `], "tool_choice": "auto"`,
		`"tools": [], "tool_choice": "auto"`,
		`"tool_choice": "none"`,
		`"tools": null`,
	} {
		text, _ := answerText(t, srv, "/v1/chat/completions", fmt.Sprintf(`{"model": "simulated", "messages": [{"role": "user", "content": "hi"}], %s}`, rest))
		if text == "" {
			t.Errorf("%s: no text", rest)
		}
	}
}

func TestRerankAnswersTheBestFirst(t *testing.T) {
	_, srv := start(t, vllmsim.Options{})
	for top, want := range map[string]int{`"top_n": 2,`: 2, `"top_n": 9,`: 4, `"top_n": 0,`: 4, "": 4} {
		r := send(t, srv, "/v1/rerank", `{`+top+` "model": "simulated", "query": "q", "documents": ["a", "b", "c", "d"]}`)
		var got struct {
			Results []struct {
				Index int
				Score float64 `json:"relevance_score"`
			}
			Usage struct {
				Prompt int `json:"prompt_tokens"`
			}
		}
		if err := json.Unmarshal([]byte(r.body()), &got); err != nil {
			t.Fatalf("%v in %s", err, r.body())
		}
		if len(got.Results) != want || got.Usage.Prompt != 8 {
			t.Errorf("%s: got %d results for %d tokens, want %d for 8", top, len(got.Results), got.Usage.Prompt, want)
		}
		for i := 1; i < len(got.Results); i++ {
			if got.Results[i].Score > got.Results[i-1].Score {
				t.Errorf("%s: result %d is better than the one before: %+v", top, i, got.Results)
			}
		}
	}
}
