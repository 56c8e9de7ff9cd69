package models_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"tollgate/e2e/stack"
	"tollgate/internal/vllmsim"
)

// words is a text of n words, different for every name.
func words(name string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s-%d ", name, i)
	}
	return b.String()
}

// conversation grows by a question and an answer with each turn.
type conversation struct {
	name     string
	messages []string
}

// turn asks the next question and keeps the answer.
func (c *conversation) turn(t *testing.T, s *stack.Stack, system string) {
	t.Helper()
	if len(c.messages) == 0 {
		c.messages = append(c.messages, message("system", system))
	}
	c.messages = append(c.messages, message("user", words(fmt.Sprintf("%s-%d", c.name, len(c.messages)), 40)))
	a := s.Post(stack.ChatPath, `{"model":"m","max_tokens":30,"messages":[`+strings.Join(c.messages, ",")+`],"sim":{"delay_ms":2}}`)
	if a.StatusCode != http.StatusOK {
		t.Errorf("%s: %d %s", c.name, a.StatusCode, a.Bytes)
		return
	}
	choices, _ := a.JSON()["choices"].([]any)
	first, _ := choices[0].(map[string]any)
	said, _ := first["message"].(map[string]any)
	c.messages = append(c.messages, message("assistant", fmt.Sprint(said["content"])))
}

func message(role, content string) string {
	return fmt.Sprintf(`{"role":%q,"content":%q}`, role, content)
}

// converse lets 40 conversations of eight turns run at once through a policy, in front
// of four engines whose caches hold a third of all that is said each, and returns the prompt
// tokens that the engines computed.
func converse(t *testing.T, policy string) (prefilled int) {
	t.Helper()
	const conversations, turns = 40, 8
	var engines []*stack.Engine
	for range 4 {
		engines = append(engines, stack.NewEngine(t, vllmsim.Options{Models: []string{"m"}, BlockSize: 16, CacheBlocks: 1600, TokenDetails: true}))
	}
	s := gateway(t, "balance: {policy: "+policy+"}\n", "", engines...)
	crowd(conversations, conversations, func(i int) {
		c := &conversation{name: fmt.Sprint("c", i)}
		for range turns {
			c.turn(t, s, words("system", 150))
		}
	})
	var each []int
	for _, e := range engines {
		each = append(each, computed(t, e))
		prefilled += computed(t, e)
	}
	t.Logf("%s: %d tokens prefilled, %v; prefix %v, least_loaded %v, overloaded %v; from caches %v", policy, prefilled, each,
		s.Metric("tollgate_placement_total", "outcome", "prefix"), s.Metric("tollgate_placement_total", "outcome", "least_loaded"),
		s.Metric("tollgate_placement_total", "outcome", "overloaded"), s.Metric("tollgate_prefix_hit_tokens_total"))
	return prefilled
}

// TestConversationsStayWhereTheirPastIs: with the policy prefix the engines compute at
// most half of what they do without.
func TestConversationsStayWhereTheirPastIs(t *testing.T) {
	t.Parallel()
	least, prefix := converse(t, "least_loaded"), converse(t, "prefix")
	if ratio := float64(prefix) / float64(least); ratio > 0.5 {
		t.Errorf("prefix computed %.2f of what least_loaded did, want at most 0.5", ratio)
	} else {
		t.Logf("ratio %.2f", ratio)
	}
}

// TestAHotPrefixDoesNotOverloadOneEngine: everybody sends the same long beginning.
func TestAHotPrefixDoesNotOverloadOneEngine(t *testing.T) {
	t.Parallel()
	var engines []*stack.Engine
	for range 4 {
		engines = append(engines, stack.NewEngine(t, vllmsim.Options{Models: []string{"m"}, BlockSize: 16, TokenDetails: true}))
	}
	s := gateway(t, "balance: {policy: prefix, max_load: 1.25}\n", "", engines...)
	hot := message("system", words("hot", 400))
	n := scale(400, 4000)
	crowd(n, 16, func(i int) {
		a := s.Post(stack.ChatPath, `{"model":"m","max_tokens":20,"messages":[`+hot+`,`+message("user", fmt.Sprint("question ", i))+`],"sim":{"delay_ms":2}}`)
		if a.StatusCode != http.StatusOK {
			t.Errorf("%d %s", a.StatusCode, a.Bytes)
		}
	})
	var each []int
	most := 0
	for _, e := range engines {
		each = append(each, e.Sim.Stats().Requests)
		most = max(most, e.Sim.Stats().Requests)
	}
	t.Logf("%d requests: %v", n, each)
	if float64(most) > 1.25*float64(n)/float64(len(engines)) {
		t.Errorf("one engine has %d of %d requests, more than 1.25 × the mean", most, n)
	}
}
