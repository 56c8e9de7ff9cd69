package usage_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"tollgate/internal/usage"
)

// generator writes random answers out of the words that matter, so that most
// of them are JSON and many say something.
type generator struct{ *rand.Rand }

func (g generator) pick(s ...string) string { return s[g.IntN(len(s))] }

func (g generator) space() string {
	if g.IntN(8) > 0 {
		return ""
	}
	return g.pick(" ", "\t", "  ", " \t ")
}

// key writes a key, now and then with an escape.
func (g generator) key(s string) string {
	if i := g.IntN(len(s)); g.IntN(6) == 0 {
		s = s[:i] + fmt.Sprintf(`\u%04x`, s[i]) + s[i+1:]
	}
	return `"` + s + `"` + g.space() + ":" + g.space()
}

func (g generator) text() string {
	return `"` + g.pick("", "a", "é", `\"`, `\\`, `\n`, `\u00e9`, `\ud83d\ude00`, `\ud83d`, "usage", `{\"usage\":{}}`, "}]", "😀", "data: [DONE]", "abort") + g.pick("", "b", strings.Repeat("x", 50)) + `"`
}

// count writes a count, mostly a sensible one.
func (g generator) count() string {
	if g.IntN(5) > 0 {
		return fmt.Sprint(g.IntN(100))
	}
	return g.pick("0", "null", "-1", "1.5", "1e3", `"12"`, "true", "{}", "[1]", "99999999999999999999", "-0", `{"prompt_tokens":1}`)
}

// object writes an object with some of the members.
func (g generator) object(members ...string) string {
	g.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return g.whole(members[:g.IntN(len(members)+1)]...)
}

// whole writes an object with all of the members.
func (g generator) whole(members ...string) string {
	g.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return "{" + g.space() + strings.Join(members, g.space()+","+g.space()) + g.space() + "}"
}

func (g generator) usage() string {
	if g.IntN(8) == 0 {
		return g.pick("null", "3", "[]", `"x"`, "{}")
	}
	prompt, completion := g.pick("prompt_tokens", "input_tokens"), g.pick("completion_tokens", "output_tokens")
	members := []string{
		g.key(prompt) + g.count(), g.key(completion) + g.count(), g.key("total_tokens") + g.count(),
		g.key(g.pick("prompt_tokens_details", "input_tokens_details")) + g.pick("null", "7", "{"+g.key("cached_tokens")+g.count()+"}"),
		g.key(g.pick("completion_tokens_details", "output_tokens_details")) + g.pick("null", "{"+g.key("reasoning_tokens")+g.count()+"}"),
		g.key("cache_read_input_tokens") + g.count(), g.key("cache_creation_input_tokens") + g.count(),
	}
	if g.IntN(10) == 0 {
		members = append(members, g.key(prompt)+g.count())
	}
	return g.object(members...)
}

func (g generator) choice() string {
	delta := g.object(
		g.key("content")+g.pick("null", g.text(), "[1]"), g.key("reasoning")+g.text(), g.key("reasoning_content")+g.text(),
		g.key("tool_calls")+"["+g.object(g.key("index")+"0", g.key("function")+g.object(g.key("arguments")+g.text(), g.key("name")+g.text()))+"]",
		g.key("usage")+g.usage(),
	)
	return g.object(
		g.key("index")+g.pick("0", "0", "0", "1", "2", "-1", "null", `"0"`, "1.0", "7"), g.key("delta")+delta, g.key("message")+delta,
		g.key("text")+g.text(), g.key("finish_reason")+g.pick("null", `"stop"`, `"abort"`, `"\u0061bort"`), g.key("logprobs")+g.pick("null", g.text(), `[{"usage":{}},"]"]`), g.key("usage")+g.usage(),
	)
}

func (g generator) document() string {
	choices := g.pick("[]", "[]", "null", "[null]", "{}", "["+g.choice()+"]", "["+g.choice()+"]", "["+g.choice()+"]", "["+g.choice()+","+g.choice()+"]")
	blocks := "[" + g.object(g.key("type")+g.text(), g.key("text")+g.text(), g.key("thinking")+g.text()) + "]"
	response := g.object(g.key("usage")+g.usage(), g.key("status")+g.pick(`"completed"`, `"failed"`), g.key("error")+"null", g.key("output")+"["+g.object(g.key("content")+blocks)+"]")
	members := []string{
		g.key("choices") + choices, g.key("choices") + choices, g.key("usage") + g.usage(), g.key("id") + g.text(), g.key("x") + g.document2(),
		g.key("type") + g.eventName(), g.key("response") + response, g.key("message") + g.object(g.key("usage")+g.usage(), g.key("id")+g.text()),
		g.key("delta") + g.pick(g.text(), g.object(g.key("text")+g.text(), g.key("thinking")+g.text(), g.key("partial_json")+g.text(), g.key("stop_reason")+"null")),
		g.key("content") + blocks, g.key("status") + g.pick(`"failed"`, `"completed"`),
	}
	if g.IntN(15) == 0 {
		members = append(members, g.key("usage")+g.usage())
	}
	if g.IntN(8) == 0 {
		members = append(members, g.key("error")+g.pick("null", `"x"`, "{}", "false"))
	}
	return g.object(members...)
}

// ending writes a chunk that ends a choice and a usage-only one.
func (g generator) ending() []string {
	last := []string{g.key("choices") + "[" + g.whole(g.key("index")+"0", g.key("finish_reason")+g.pick(`"stop"`, `"stop"`, "null")) + "]", g.key("id") + g.text()}
	if g.IntN(2) == 0 {
		last = append(last, g.key("usage")+`{"completion_tokens":1}`)
	}
	if g.IntN(8) == 0 {
		last = append(last, g.fingerprint())
	}
	usage := []string{g.key("choices") + "[]", g.key("usage") + `{"completion_tokens":1}`}
	for range g.IntN(3) {
		usage = append(usage, g.fingerprint())
	}
	return []string{g.whole(last...), g.whole(usage...)}
}

func (g generator) fingerprint() string {
	return g.key("system_fingerprint") + g.pick("null", "1", "[[1],2]", `{"a":{}}`, g.text())
}

// document2 is something that nobody reads.
func (g generator) document2() string {
	return g.pick("1", "-1.5e3", g.text(), "[[],{},[{}]]", `{"usage":{"prompt_tokens":9},"choices":[]}`, `["\\",{"a":"]"}]`)
}

func (g generator) eventName() string {
	return `"` + g.pick("", "x", "error", "response.completed", "response.incomplete", "response.failed", "response.output_text.delta", "response.audio.delta", "response.created", "message_start", "message_delta", "message_stop") + `"`
}

// stream writes an event stream.
func (g generator) stream() string {
	var b strings.Builder
	b.WriteString(g.pick("", "", "", "\xef\xbb\xbf"))
	var documents []string
	for range 1 + g.IntN(3) {
		documents = append(documents, g.document())
		if g.IntN(3) == 0 {
			documents = append(documents, g.ending()...)
		}
	}
	for _, data := range documents {
		end := g.pick("\n", "\n", "\r", "\r\n")
		if g.IntN(4) == 0 {
			b.WriteString(g.pick("event: "+strings.Trim(g.eventName(), `"`), ": c", "id: 1", "retry", "data2: {}", "event") + end)
		}
		switch g.IntN(12) {
		case 0:
			data = g.pick("[DONE]", "[DONE]", "[done]", " [DONE]", "", "[DONE] ")
		case 1: // over several lines, where JSON allows it
			data = strings.ReplaceAll(data, ","+`"`, ","+end+"data: "+`"`)
		}
		b.WriteString("data:" + g.pick("", " ", " ", "  ") + data + end)
		b.WriteString(g.pick(end, end, end, end+end, ": c"+end+end))
	}
	s := b.String()
	return s[:len(s)-g.IntN(3)]
}

func TestGeneratedStreamsMatchTheReference(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(3, 4))}
	known := 0
	for range 6_000 / thin {
		body, o := []byte(g.stream()), options(uint16(g.Uint32()), true)
		var got usage.Report
		if g.IntN(4) == 0 {
			got = checkSplits(t, o, body, uint16(g.Uint32()), uint16(g.Uint32()))
		} else {
			got, _ = feed(usage.NewMeter(o), body)
		}
		checkAgainstReference(t, o, body, got)
		if checkStrip(t, o, body, got); t.Failed() {
			t.Fatalf("body %q", body)
		}
		if got.Seen && o.Format != usage.Free {
			known++
		}
	}
	if known < 600/thin {
		t.Errorf("got usage of %d streams only", known)
	}
}

func TestGeneratedBodiesMatchTheReference(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(5, 6))}
	known := 0
	for range 6_000 / thin {
		body, o := []byte(g.space()+g.document()+g.pick("", "\n")), options(uint16(g.Uint32()), false)
		got := checkSplits(t, o, body, uint16(g.Uint32()), uint16(g.Uint32()))
		if checkAgainstReference(t, o, body, got); t.Failed() {
			t.Fatalf("body %q", body)
		}
		if got.Seen && o.Format != usage.Free {
			known++
		}
	}
	if known < 600/thin {
		t.Errorf("got usage of %d bodies only", known)
	}
}
