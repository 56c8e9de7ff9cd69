package vllmsim_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"tollgate/internal/vllmsim"
)

func TestTypesAreAsLaxAsTheRealOnes(t *testing.T) {
	_, srv := start(t, vllmsim.Options{})
	for _, c := range []struct {
		name, more string
		streams    bool
	}{
		{"a string that says true", `,"stream":"true"`, true},
		{"a one", `,"stream":1`, true},
		{"null", `,"stream":null`, false},
		{"the last of two", `,"stream":false,"stream":true`, true},
		{"another case", `,"Stream":true`, false},
		{"unknown fields", `,"best_of":7,"nonsense":{"a":[1]}`, false},
		{"numbers in strings", `,"max_tokens":"3","n":1.0`, false},
		{"the longer bound wins", `,"max_tokens":"x y","stream":true,"max_tokens":2,"max_completion_tokens":3`, true},
		{"options without a meaning", `,"stream":true,"stream_options":{"other":1}`, true},
	} {
		r := send(t, srv, chatPath, chat(c.more))
		if r.status != http.StatusOK || strings.HasPrefix(r.headers["content-type"], "text/event-stream") != c.streams {
			t.Errorf("%s: got %d as %s: %s", c.name, r.status, r.headers["content-type"], r.body())
		}
	}
	odd := strings.Repeat("long id ü ", 30)
	if r := send(t, srv, chatPath, chat(``), "X-Request-Id: "+odd); !strings.Contains(r.body(), `"id":"chatcmpl-`+strings.TrimSpace(odd)+`"`) {
		t.Errorf("an odd id: got %.100s", r.body())
	}
}

func TestWhatIsTooLongIsRefused(t *testing.T) {
	_, srv := start(t, vllmsim.Options{MaxModelLen: 20})
	for more, want := range map[string]int{
		`,"max_tokens":7`: http.StatusOK, `,"max_tokens":8`: http.StatusBadRequest, `,"max_tokens":21`: http.StatusBadRequest,
	} {
		if r := send(t, srv, chatPath, chat(more)); r.status != want {
			t.Errorf("%s: got %d, want %d: %s", more, r.status, want, r.body())
		}
	}
	r := send(t, srv, chatPath, chat(``)) // fills the context
	if got := usageOf(t, r.body())["total_tokens"]; got != 20 {
		t.Errorf("without a bound: got %d tokens, want 20", got)
	}
}

func TestEverySeriesIsARecordedOne(t *testing.T) {
	sim, srv := start(t, vllmsim.Options{Models: []string{"tiny"}})
	send(t, srv, chatPath, chat(`,"max_tokens":3`))
	value := regexp.MustCompile(` [0-9.e+]+$`)
	known := make(map[string]bool)
	for line := range strings.Lines(string(recorded(t, "base/metrics.txt"))) {
		known[value.ReplaceAllString(strings.TrimSpace(line), "")] = true
	}
	series := 0
	for line := range strings.Lines(metrics(t, srv)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "# HELP") {
			continue
		}
		if !known[value.ReplaceAllString(line, "")] {
			t.Errorf("not recorded: %s", line)
		}
		series++
	}
	if series < 25 {
		t.Errorf("compared %d lines", series)
	}
	if s := sim.Stats(); s.PromptTokens != chatPrompt || s.GenerationTokens != 3 {
		t.Errorf("stats: %+v", s)
	}
}
