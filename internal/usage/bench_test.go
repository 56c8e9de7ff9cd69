package usage_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"tollgate/internal/usage"
)

// chunk240 is a short running chunk as vLLM writes it, 240 bytes and a bit.
const chunk240 = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795502015,"model":"tiny","choices":[{"index":0,"delta":{"content":" the"},"finish_reason":null}],"usage":{"prompt_tokens":18,"total_tokens":19,"completion_tokens":1}}` + "\n\n"

// chunkBare is what vLLM sends to a client that asked for no usage.
const chunkBare = `data: {"id":"chatcmpl-84dcfb93631744a0","object":"chat.completion.chunk","created":1795502015,"model":"tiny","choices":[{"index":0,"delta":{"content":" darabe"},"logprobs":null,"finish_reason":null,"token_ids":null}]}` + "\n\n"

// chunkRecorded is a running chunk as recorded: 321 bytes.
const chunkRecorded = `data: {"id":"chatcmpl-8602a549def80970","object":"chat.completion.chunk","created":1795502015,"model":"tiny","choices":[{"index":0,"delta":{"content":" darabe"},"logprobs":null,"finish_reason":null,"token_ids":null}],"usage":{"prompt_tokens":18,"total_tokens":22,"completion_tokens":4,"completion_tokens_details":null}}` + "\n\n"

func benchmarkChunk(b *testing.B, o usage.Options, chunk string) {
	b.Helper()
	m := usage.NewMeter(o)
	c := []byte(chunk)
	b.SetBytes(int64(len(c)))
	b.ReportAllocs()
	for b.Loop() {
		m.Feed(c, false)
		if m.Report().End != usage.Open {
			b.Fatal("ended")
		}
	}
}

func BenchmarkChunk(b *testing.B) {
	for _, c := range []struct{ name, text string }{{"usage240", chunk240}, {"bare", chunkBare}, {"recorded", chunkRecorded}} {
		b.Run(c.name+"/pass", func(b *testing.B) { benchmarkChunk(b, usage.Options{SSE: true}, c.text) })
		b.Run(c.name+"/strip", func(b *testing.B) {
			benchmarkChunk(b, usage.Options{SSE: true, StripFinal: true, StripRunning: true}, c.text)
		})
	}
}

func BenchmarkBody16KiB(b *testing.B) {
	body := fmt.Appendf(nil, `{"id":"chatcmpl-1","choices":[{"index":0,"message":{"role":"assistant","content":"%s"},"logprobs":{"content":[%s0]},"finish_reason":"stop"}],"usage":{"prompt_tokens":18,"total_tokens":22,"completion_tokens":4}}`,
		strings.Repeat(`The quick brown fox, \"jumping\".\n`, 240), strings.Repeat(`{"token":"a","logprob":-0.25,"bytes":[97]},`, 180))
	m := usage.NewMeter(usage.Options{})
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		m.Reset(usage.Options{})
		for chunk := range bytes.SplitSeq(body, []byte("ox")) {
			m.Feed(chunk, false)
		}
		m.Feed(nil, true)
	}
}

func BenchmarkBody16KiBText(b *testing.B) {
	body := fmt.Appendf(nil, `{"choices":[{"index":0,"message":{"content":"%s"}}],"usage":{"prompt_tokens":18,"completion_tokens":4}}`, strings.Repeat("The quick brown fox. ", 780))
	m := usage.NewMeter(usage.Options{})
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		m.Reset(usage.Options{})
		m.Feed(body, true)
	}
}
