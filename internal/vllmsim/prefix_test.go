package vllmsim_test

import (
	"fmt"
	"strings"
	"testing"

	"tollgate/internal/vllmsim"
)

// conversation is a request with so many turns, each longer than a block.
func conversation(turns int, more string) string {
	var b strings.Builder
	for i := range turns {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"role":"user","content":%q}`, strings.Repeat(fmt.Sprintf("turn %d ", i), 40))
	}
	return `{"model":"simulated","max_tokens":1,"messages":[` + b.String() + `]` + more + `}`
}

func TestAPrefixIsCachedBlockByBlock(t *testing.T) {
	_, srv := start(t, vllmsim.Options{BlockSize: 16, CacheBlocks: 1000, TokenDetails: true})
	cached := func(body string) int {
		t.Helper()
		got := send(t, srv, chatPath, body)
		_, rest, ok := strings.Cut(got.body(), `"cached_tokens":`)
		n := 0
		if _, err := fmt.Sscan(rest, &n); !ok || err != nil {
			t.Fatalf("%d: %s", got.status, got.body())
		}
		return n
	}
	if n := cached(conversation(1, "")); n != 0 {
		t.Errorf("the first time: %d", n)
	}
	one := cached(conversation(1, ""))
	if one == 0 || one%16 != 0 {
		t.Errorf("the same again: %d", one)
	}
	// All blocks of the first turn, and nothing of what is new.
	if n := cached(conversation(2, "")); n < one || n >= 2*one {
		t.Errorf("a turn more: %d, want about %d", n, one)
	}
	if n := cached(conversation(1, `,"cache_salt":"x"`)); n != 0 {
		t.Errorf("with a salt: %d", n)
	}
	text := metrics(t, srv)
	for _, want := range []string{`,block_size="16",`, `num_gpu_blocks="1000",`, "vllm:prefix_cache_queries_total{", "vllm:prefix_cache_hits_total{"} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics have no %s", want)
		}
	}
}

func TestThePrefixCacheIsBounded(t *testing.T) {
	_, srv := start(t, vllmsim.Options{BlockSize: 16, CacheBlocks: 4, TokenDetails: true})
	ask := func(word string) string {
		return send(t, srv, chatPath, `{"model":"simulated","max_tokens":1,"messages":[{"role":"user","content":"`+strings.Repeat(word+" ", 60)+`"}]}`).body()
	}
	ask("first")
	if got := ask("first"); strings.Contains(got, `"cached_tokens":0`) {
		t.Errorf("the same again: %s", got)
	}
	ask("second")
	if got := ask("first"); !strings.Contains(got, `"cached_tokens":0`) {
		t.Errorf("after another prompt has taken all blocks: %s", got)
	}
}
