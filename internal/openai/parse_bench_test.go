package openai_test

import (
	"fmt"
	"strings"
	"testing"

	"tollgate/internal/openai"
)

func BenchmarkParse(b *testing.B) {
	const turn = `{"role":"user","content":"The quick brown fox jumps over the lazy dog.\n\nIt said: \"four times a day\", and then nothing."},`
	for _, size := range []int{1 << 10, 220 << 10, 8 << 20} {
		head := `{"model":"m","stream":true,"messages":[`
		turns := strings.Repeat(turn, max(1, (size-len(head)-20)/len(turn)))
		body := []byte(head + strings.TrimSuffix(turns, ",") + `]}`)
		benchmark(b, fmt.Sprintf("turns/%dKiB", size>>10), openai.ChatCompletions, body)
		long := []byte(head + `{"role":"user","content":"` + strings.Repeat("Einhörner sind 独角兽. Dogs are not.\\n", size/40) + `"}]}`)
		benchmark(b, fmt.Sprintf("text/%dKiB", size>>10), openai.ChatCompletions, long)
		ids := []byte(`{"model":"m","stream":true,"prompt":[1` + strings.Repeat(",12345", size/6) + `]}`)
		benchmark(b, fmt.Sprintf("ids/%dKiB", size>>10), openai.Completions, ids)
	}
}

func benchmark(b *testing.B, name string, ep openai.Endpoint, body []byte) {
	b.Helper()
	b.Run(name, func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		pooled := limits
		var room []byte
		pooled.Buffer = func(size int) []byte {
			if cap(room) < size {
				room = make([]byte, size)
			}
			return room[:0]
		}
		for b.Loop() {
			if _, err := openai.Parse(ep, body, pooled); err != nil {
				b.Fatal(err)
			}
		}
	})
}
