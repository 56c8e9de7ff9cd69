package openai_test

import (
	"errors"
	"strings"
	"testing"

	"tollgate/internal/media"
	"tollgate/internal/openai"
)

// mediaPlaces are all nestings in which an engine looks for something to fetch;
// URL stands for it, and the key is how a refusal names it.
var mediaPlaces = []struct {
	ep          openai.Endpoint
	param, body string
}{
	{openai.ChatCompletions, "messages[0].content[1].image_url.url", `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":{"detail":"low","url":URL}}]}]}`},
	{openai.ChatCompletions, "messages[0].content[0].image_url", `{"model":"m","messages":[{"role":"user","content":[{"image_url":URL}]}]}`},
	{openai.ChatCompletions, "messages[0].content[0].video_url.url", `{"model":"m","messages":[{"role":"user","content":[{"type":"video_url","video_url":{"url":URL}}]}]}`},
	{openai.ChatCompletions, "messages[0].content[0].audio_url.url", `{"messages":[{"role":"user","content":[{"type":"audio_url","audio_url":{"url":URL},"uuid":"u"}]}],"model":"m"}`},
	{openai.ChatCompletions, "messages[1].content[0].image_url.url", `{"model":"m","messages":[{"role":"user","content":"x"},{"role":"tool","content":[{"image_url":{"url":URL}}]}]}`},
	{openai.ChatCompletions, "messages[0].content[0].image_url", `{"model":"m","messages":[{"role":"user","content":[{"im\u0061ge_url":URL}]}]}`},
	{openai.Responses, "input[0].content[0].image_url", `{"model":"m","input":[{"role":"user","content":[{"type":"input_image","image_url":URL,"detail":"auto"}]}]}`},
	{openai.Responses, "input[0].output[0].image_url", `{"model":"m","input":[{"type":"function_call_output","call_id":"c","output":[{"type":"input_image","image_url":URL}]}]}`},
	{openai.Responses, "input[0].content[0].file_url", `{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_url":URL}]}]}`},
	{openai.Responses, "prompt.variables.x.image_url", `{"model":"m","prompt":{"id":"p","variables":{"x":{"type":"input_image","image_url":URL}}}}`},
	{openai.Messages, "messages[0].content[0].source.url", `{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":URL}}]}]}`},
	{openai.Messages, "messages[0].content[0].content[0].source.url", `{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"image","source":{"url":URL,"type":"url"}}]}]}]}`},
	{openai.CountTokens, "messages[0].content[0].source.url", `{"model":"m","messages":[{"role":"user","content":[{"type":"document","source":{"type":"url","url":URL}}]}]}`},
	{openai.Embeddings, "messages[0].content[0].image_url.url", `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":URL}}]}]}`},
	{openai.Embeddings, "input[0].content[0].image_url.url", `{"model":"m","input":[{"content":[{"type":"image_url","image_url":{"url":URL}}]}]}`},
	{openai.Score, "data_2.content[0].image_url.url", `{"model":"m","data_1":"x","data_2":{"content":[{"type":"image_url","image_url":{"url":URL}}]}}`},
	{openai.Rerank, "documents[1].content[0].video_url.url", `{"model":"m","query":"q","documents":["x",{"content":[{"type":"video_url","video_url":{"url":URL}}]}]}`},
	{openai.Rerank, "query.content[0].image_url.url", `{"model":"m","query":{"content":[{"type":"image_url","image_url":{"url":URL}}]},"documents":["x"]}`},
	{openai.Tokenize, "messages[0].content[0].image_url.url", `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":URL}}]}]}`},
}

func TestWhatAnEngineWouldFetchIsChecked(t *testing.T) {
	for _, p := range mediaPlaces {
		for _, url := range []string{"http://169.254.169.254/latest/", "file:///etc/passwd", "http://127.0.0.1:8000/metrics", `http:\/\/0x7f.1\/`, `h\u0074tp://[::1]/`} {
			body := strings.Replace(p.body, "URL", `"`+url+`"`, 1)
			_, err := openai.Parse(p.ep, []byte(body), limits)
			var bad *openai.BadRequestError
			if !errors.As(err, &bad) || bad.Param != p.param || !strings.Contains(bad.Message, "request.media_domains") {
				t.Errorf("%s on %s: got %+v, want a refusal that names %s and the setting", body, p.ep, err, p.param)
				continue
			}
			if strings.Contains(bad.Message, "169.254") || strings.Contains(bad.Message, "passwd") {
				t.Errorf("the URL is in %q", bad.Message)
			}
		}
		for _, url := range []string{"https://example.org/a.png", "data:image/png;base64,AAAA", `DATA:image\/png;base64,` + strings.Repeat("A", 200_000), ""} {
			body := strings.Replace(p.body, "URL", `"`+url+`"`, 1)
			if _, err := openai.Parse(p.ep, []byte(body), limits); err != nil {
				t.Errorf("%.120s on %s: %v", body, p.ep, err)
			}
		}
	}
}

func TestURLsThatNobodyFetchesPass(t *testing.T) {
	for _, body := range []string{
		`{"model":"m","messages":[{"role":"user","content":"see http://127.0.0.1/ and {\"image_url\":\"file:///x\"}"}]}`,
		`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x","url":"http://10.0.0.1/"}]}]}`,
		`{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{\"image_url\":\"http://10.0.0.1\"}"}}]}]}`,
		`{"model":"m","messages":[],"metadata":{"image_url":"http://10.0.0.1/"}}`,
		`{"model":"m","messages":[],"tools":[{"function":{"name":"f","parameters":{"properties":{"image_url":{"type":"string","url":"http://10.0.0.1"}}}}}]}`,
		`{"model":"m","messages":[{"role":"user","content":[{"image_url":null,"uuid":"u"},{"source":"http://10.0.0.1/"}]}]}`,
	} {
		if _, err := openai.Parse(openai.ChatCompletions, []byte(body), limits); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestAListOfMediaDomainsDecides(t *testing.T) {
	policy, err := media.New([]string{"minio", "10.1.0.0/16"})
	if err != nil {
		t.Fatal(err)
	}
	lim := limits
	lim.Media = policy
	for url, ok := range map[string]bool{"http://minio:9000/a": true, "http://10.1.0.9/a": true, "https://example.org/a": false, "http://10.2.0.9/a": false} {
		_, err := openai.Parse(openai.ChatCompletions, []byte(strings.Replace(mediaPlaces[0].body, "URL", `"`+url+`"`, 1)), lim)
		if (err == nil) != ok {
			t.Errorf("%s: got %v", url, err)
		}
	}
}

func TestAClientsOwnNamesAreNotInAParam(t *testing.T) {
	r := refused(t, openai.ChatCompletions, `{"model":"m","messages":[{"my secret prompt":{"image_url":"file:///x"}}]}`)
	if r.Param != "messages[0].?.image_url" {
		t.Errorf("param %q", r.Param)
	}
}
