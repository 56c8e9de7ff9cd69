package vllmsim_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/vllmsim"
)

// tiny is the recorded server with default flags.
var tiny = vllmsim.Options{Models: []string{"tiny"}, Root: "tiny/model", MaxModelLen: 1024, GenerateOnly: true}

// compare replays name.req and holds the answer against name.resp.
func compare(t *testing.T, got, want reply) {
	t.Helper()
	if got.status != want.status {
		t.Fatalf("status: got %d, want %d; body %s", got.status, want.status, got.body())
	}
	if diff := cmp.Diff(headersOf(want), headersOf(got)); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if want.headers["transfer-encoding"] == "chunked" {
		if diff := cmp.Diff(streamShape(t, want.chunks), streamShape(t, got.chunks)); diff != "" {
			t.Errorf("stream (-want +got):\n%s", diff)
		}
		return
	}
	switch {
	case want.headers["content-type"] != "application/json":
		if got.body() != want.body() {
			t.Errorf("body: got %q, want %q", got.body(), want.body())
		}
	default:
		if diff := cmp.Diff(shape(t, want.body()), shape(t, got.body())); diff != "" {
			t.Errorf("body (-want +got):\n%s", diff)
		}
	}
}

// headersOf are the headers that say something; one that only has to be there
// is kept by name.
func headersOf(r reply) map[string]string {
	out := make(map[string]string)
	for name, value := range r.headers {
		switch name {
		case "date", "content-length", "x-request-id":
			value = "(any)"
		}
		out[name] = value
	}
	return out
}

func TestAnswersHaveTheRecordedShape(t *testing.T) {
	files, err := filepath.Glob("testdata/base/*.req")
	if err != nil || len(files) < 50 {
		t.Fatalf("found %d recordings, error %v", len(files), err)
	}
	_, srv := start(t, tiny)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".req")
		t.Run(name, func(t *testing.T) {
			want := readReply(t, recorded(t, "base/"+name+".resp"))
			got := readReply(t, exchange(t, srv, recorded(t, "base/"+name+".req")))
			compare(t, got, want)
		})
	}
}

func TestOneEventIsOneChunkAsRecorded(t *testing.T) {
	_, srv := start(t, tiny)
	for _, name := range []string{"chat_stream", "chat_stream_usage", "chat_stream_cont", "chat_stream_cont_n2", "chat_stream_max1_cont", "comp_stream", "comp_stream_cont_2prompts", "comp_stream_cont_echo"} {
		want := readReply(t, recorded(t, "base/"+name+".resp"))
		got := readReply(t, exchange(t, srv, recorded(t, "base/"+name+".req")))
		if len(got.chunks) != len(want.chunks) || !got.ended {
			t.Errorf("%s: got %d chunks, ended %v, want %d", name, len(got.chunks), got.ended, len(want.chunks))
		}
		for _, c := range got.chunks {
			if strings.Count(c, "\n\n") != 1 || !strings.HasSuffix(c, "\n\n") {
				t.Errorf("%s: chunk is not one event: %q", name, c)
			}
		}
	}
}

// adapters lays out the files that the recorded LoRA server had.
func adapters(t *testing.T) (dir string, opts vllmsim.Options) {
	t.Helper()
	dir = t.TempDir()
	write := func(path, base string, rank int) {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(full, 0o755); err != nil {
			t.Fatal(err)
		}
		config := fmt.Sprintf(`{"peft_type":"LORA","base_model_name_or_path":%q,"r":%d}`, base, rank)
		if err := os.WriteFile(filepath.Join(full, "adapter_config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	base := dir + "/tiny/model"
	write("tiny/lora/b", base, 8)
	write("tiny/lora/big", base, 32)
	write("resolver/dyn", base, 8)
	write("resolver/dynbig", base, 32)
	write("resolver/badbase", "/other", 8)
	return dir, vllmsim.Options{
		Models: []string{"tiny"}, Root: base, MaxModelLen: 32768, APIKey: "sk-test", EnableLoRA: true, ToolParser: true,
		Adapters: map[string]string{"boot": dir + "/tiny/lora/a"}, ResolverDir: dir + "/resolver",
		TokenDetails: true, ForceUsage: true, RequestIDHeader: true, RequestMetrics: true, NoFingerprint: true,
	}
}

// relocate replaces the recorded folder in a request by dir.
func relocate(request []byte, dir string) []byte {
	head, body, _ := bytes.Cut(request, []byte("\r\n\r\n"))
	moved := bytes.ReplaceAll(body, []byte("/srv/vllmlab"), []byte(dir))
	head = bytes.Replace(head, fmt.Appendf(nil, "Content-Length: %d", len(body)), fmt.Appendf(nil, "Content-Length: %d", len(moved)), 1)
	return append(append(head, "\r\n\r\n"...), moved...)
}

func TestAdaptersAndFlagsHaveTheRecordedShape(t *testing.T) {
	dir, opts := adapters(t)
	sim, srv := start(t, opts)
	for _, name := range []string{
		"models_before", "chat_boot", "load_b", "load_b_again", "load_b_inplace", "models_loaded", "chat_b", "chat_b_stream",
		"load_empty_name", "load_missing_path", "load_name_is_base", "load_no_key", "load_no_path",
		"load_rank_too_high", "load_text", "unload_base", "unload_empty", "unload_b", "unload_b_again", "chat_b_after_unload",
		"err_401", "err_401_wrong", "err_401_xapikey", "xrid", "noxrid",
		"forced_chat_stream", "forced_comp_stream", "forced_false_stream",
		"cached1", "cached2", "cached_messages", "cached_messages_stream", "cached_responses", "cached_stream",
		"tool_auto", "tool_named", "tool_named_stream", "tool_required",
		"resolve_dyn", "resolve_big", "resolve_badbase", "resolve_unknown", "resolve_traversal",
	} {
		t.Run(name, func(t *testing.T) {
			want := readReply(t, recorded(t, "lora/"+name+".resp"))
			request := relocate(recorded(t, "lora/"+name+".req"), dir)
			var script vllmsim.Script
			switch {
			case strings.HasPrefix(name, "forced_"):
				script.EmptyEvery = 6 // the recorded sixth token had no text
			case strings.HasPrefix(name, "tool_"):
				// The recorded model had not closed its call when it was cut.
				request = bytes.Replace(request, []byte(`"max_tokens": 120`), []byte(`"max_tokens":  12`), 1)
			}
			if err := sim.Script(vllmsim.Control{Defaults: &script}); err != nil {
				t.Fatal(err)
			}
			got := readReply(t, exchange(t, srv, request))
			compare(t, got, want)
		})
	}
}
