package openai_test

import (
	"bytes"
	"os"
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

func TestModelListIsCutToWhatAKeyMayUse(t *testing.T) {
	body := recordedModels(t)
	got, err := openai.FilterModels(body, func(name string) bool { return name != "boot" })
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := bytes.Cut(body, []byte(`,{"id":"boot"`))
	_, tail, _ := bytes.Cut(rest, []byte(`,{"id":"b"`))
	want := strings.NewReplacer(
		`"/srv/vllmlab/tiny/model"`, `"tiny"`,
		`"/srv/vllmlab/tiny/lora/b"`, `"b"`,
	).Replace(string(head) + `,{"id":"b"` + string(tail))
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
}

func TestAKeyWithoutModelsGetsAnEmptyList(t *testing.T) {
	got, err := openai.FilterModels(recordedModels(t), func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"object":"list","data":[]}`; string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPathsOfTheServerStayOnTheServer(t *testing.T) {
	for root, shown := range map[string]string{
		`"/models/llama"`: `"m"`, `"./llama"`: `"m"`, `"../llama"`: `"m"`, `"~/llama"`: `"m"`, `"models/a/b"`: `"m"`,
		`"C:\\models"`: `"m"`, `"s3://bucket/x"`: `"m"`, `"models/"`: `"m"`,
		`"meta/Llama-3"`: `"meta/Llama-3"`, `"llama"`: `"llama"`, `null`: `null`,
	} {
		body := `{"object":"list","data":[{"id":"m","root":` + root + `,"parent":null,"max_model_len":null,"lora_path":"/secret"}]}`
		got, err := openai.FilterModels([]byte(body), func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		if want := `{"object":"list","data":[{"id":"m","root":` + shown + `,"parent":null,"max_model_len":null}]}`; string(got) != want {
			t.Errorf("root %s: got %s, want %s", root, got, want)
		}
	}
	const adapter = `{"data":[{"id":"a","root":"lora/a","parent":"/models/base","max_model_len":5}]}`
	got, err := openai.FilterModels([]byte(adapter), func(string) bool { return true })
	if want := `{"data":[{"id":"a","root":"a","parent":null,"max_model_len":5}]}`; err != nil || string(got) != want {
		t.Errorf("adapter: got %s, %v, want %s", got, err, want)
	}
}

func TestModelNamesTellBasesFromAdapters(t *testing.T) {
	got, err := openai.ModelNames(recordedModels(t))
	if err != nil {
		t.Fatal(err)
	}
	want := []openai.Model{{ID: "tiny", MaxLen: 32768}, {ID: "boot", Parent: "tiny"}, {ID: "b", Parent: "tiny"}}
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
		"too long":      `{"data":[]}` + strings.Repeat(" ", 4<<20),
		"too many":      `{"data":[` + strings.TrimSuffix(strings.Repeat(`{"id":"a"},`, 10_001), ",") + `]}`,
	} {
		if got, err := openai.ModelNames([]byte(body)); err == nil {
			t.Errorf("ModelNames, %s: got %v, want an error", name, got)
		}
		if got, err := openai.FilterModels([]byte(body), func(string) bool { return true }); err == nil {
			t.Errorf("FilterModels, %s: got %s, want an error", name, got)
		}
	}
}
