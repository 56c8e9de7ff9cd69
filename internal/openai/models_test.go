package openai_test

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/openai"
)

func recordedModels(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/vllm-0.32.0/models_loaded.resp")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := bytes.Cut(b, []byte("\r\n\r\n"))
	return body
}

// listed reads a list and writes it again, without the model that drop names.
func listed(t *testing.T, body []byte, drop string) string {
	t.Helper()
	models, err := openai.ModelNames(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(openai.ModelList(slices.DeleteFunc(models, func(m openai.Model) bool { return m.ID == drop })))
}

func TestModelListIsWhatVLLMSaysWithoutItsPaths(t *testing.T) {
	body := recordedModels(t)
	got := listed(t, body, "boot")
	head, rest, _ := bytes.Cut(body, []byte(`,{"id":"boot"`))
	_, tail, _ := bytes.Cut(rest, []byte(`,{"id":"b"`))
	want := strings.NewReplacer(
		`"/srv/vllmlab/tiny/model"`, `"tiny"`,
		`"/srv/vllmlab/tiny/lora/b"`, `"b"`,
	).Replace(string(head) + `,{"id":"b"` + string(tail))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
}

func TestNoModelsAreAnEmptyList(t *testing.T) {
	if got, want := string(openai.ModelList(nil)), `{"object":"list","data":[]}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := string(openai.AnthropicModelList(nil, false)), `{"data":[],"first_id":null,"has_more":false,"last_id":null}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestModelsInAnthropicsShape(t *testing.T) {
	got := string(openai.AnthropicModelList([]openai.Model{{ID: `a"b`, Created: 1700000000}, {ID: "c"}}, true))
	want := `{"data":[{"type":"model","id":"a\"b","display_name":"a\"b","created_at":"2023-11-14T22:13:20Z"},` +
		`{"type":"model","id":"c","display_name":"c","created_at":"1970-01-01T00:00:00Z"}],"first_id":"a\"b","has_more":true,"last_id":"c"}`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
}

func TestPathsOfTheServerStayOnTheServer(t *testing.T) {
	for root, shown := range map[string]string{
		`"/models/llama"`: `"m"`, `"./llama"`: `"m"`, `"../llama"`: `"m"`, `"~/llama"`: `"m"`, `"models/a/b"`: `"m"`,
		`"C:\\models"`: `"m"`, `"s3://bucket/x"`: `"m"`, `"models/"`: `"m"`,
		`"meta/Llama-3"`: `"meta/Llama-3"`, `"llama"`: `"llama"`, `null`: `null`,
	} {
		body := `{"object":"list","data":[{"id":"m","root":` + root + `,"parent":null,"max_model_len":null,"lora_path":"/secret"}]}`
		got := listed(t, []byte(body), "")
		if want := `{"object":"list","data":[{"id":"m","root":` + shown + `,"parent":null,"max_model_len":null}]}`; got != want {
			t.Errorf("root %s: got %s, want %s", root, got, want)
		}
	}
	const adapter = `{"data":[{"id":"a","root":"lora/a","parent":"/models/base","max_model_len":5}]}`
	got := listed(t, []byte(adapter), "")
	if want := `{"object":"list","data":[{"id":"a","root":"a","parent":null,"max_model_len":5}]}`; got != want {
		t.Errorf("adapter: got %s, want %s", got, want)
	}
}

func TestModelNamesTellBasesFromAdapters(t *testing.T) {
	got, err := openai.ModelNames(recordedModels(t))
	if err != nil {
		t.Fatal(err)
	}
	want := []openai.Model{{ID: "tiny", MaxLen: 32768}, {ID: "boot", Parent: "tiny"}, {ID: "b", Parent: "tiny"}}
	for i := range got {
		got[i].Card, got[i].Created = nil, 0
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("models (-want +got):\n%s", diff)
	}
}

func TestStrangeModelListsAreErrors(t *testing.T) {
	for name, body := range map[string]string{
		"empty":         "",
		"not JSON":      "<html>",
		"no data":       `{"object":"list"}`,
		"null data":     `{"data":null}`,
		"detail":        `{"detail":"Not Found"}`,
		"array":         `[]`,
		"no id":         `{"data":[{"root":"x"}]}`,
		"duplicate id":  `{"data":[{"id":"a","id":"b"}]}`,
		"id of 1":       `{"data":[{"id":1}]}`,
		"bad UTF-8":     "{\"data\":[{\"id\":\"\xff\"}]}",
		"two documents": `{"data":[]}{"data":[]}`,
		"too long":      `{"data":[]}` + strings.Repeat(" ", 16<<20),
		"too many":      `{"data":[` + strings.TrimSuffix(strings.Repeat(`{"id":"a"},`, 10_001), ",") + `]}`,
	} {
		if got, err := openai.ModelNames([]byte(body)); err == nil {
			t.Errorf("ModelNames, %s: got %v, want an error", name, got)
		}
	}
}
