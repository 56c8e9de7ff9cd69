package usage_test

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"tollgate/internal/usage"
)

// doc is what one decoded document says.
type doc struct {
	f                                                  *reference
	usage, keyed, duplicate, top, bad, failed, aborted bool
	counts                                             usage.Counts
	created                                            int64
	fields                                             []string
	choices                                            int
	index                                              int64
	name, status                                       string
	plain, reasoning, old                              int64
}

func (d *doc) textBytes() int64 { return d.plain + max(d.reasoning, d.old) }

func count(to *int64, v any) {
	if s, ok := v.(string); ok {
		*to += int64(len(s))
	}
}

func (d *doc) chunk(o object) {
	for _, m := range o {
		switch m.Key {
		case "error":
			d.failed = d.failed || m.Value != nil
		case "usage":
			if d.f.o.Format != usage.Free {
				d.usageAt(m.Value, true)
			}
		case "choices":
			if d.f.o.Format == usage.Free {
				continue
			}
			switch v := m.Value.(type) {
			case nil:
			case array:
				for _, e := range v {
					d.choices++
					if c, ok := e.(object); ok {
						d.choice(c)
					}
				}
			default:
				d.f.note(usage.WrongType)
				d.choices++
			}
		}
	}
}

func (d *doc) choice(o object) {
	for _, m := range o {
		switch m.Key {
		case "finish_reason":
			d.aborted = d.aborted || m.Value == "abort"
		case "text":
			count(&d.plain, m.Value)
		case "delta", "message":
			if o, ok := m.Value.(object); ok {
				d.delta(o)
			}
		}
	}
	index := d.indexOf(o)
	if index == usage.Unsaid {
		d.f.note(usage.BadIndex)
	}
	if d.choices == 1 {
		d.index = index
	}
}

// indexOf returns the index of a choice, Unsaid when there is none to trust.
func (d *doc) indexOf(o object) int64 {
	o = slices.DeleteFunc(slices.Clone(o), func(m member) bool { return m.Key != "index" })
	if len(o) == 0 && d.f.o.Choices == 1 {
		return 0
	}
	if len(o) != 1 {
		return usage.Unsaid
	}
	n, ok := o[0].Value.(json.Number)
	i, err := strconv.ParseInt(n.String(), 10, 64)
	if !ok || err != nil || n.String()[0] == '-' || i >= int64(d.f.o.Choices) {
		return usage.Unsaid
	}
	return i
}

func (d *doc) delta(o object) {
	function := func(v any) {
		o, _ := v.(object)
		for _, m := range o {
			if m.Key == "arguments" {
				count(&d.plain, m.Value)
			}
		}
	}
	for _, m := range o {
		switch m.Key {
		case "content", "refusal":
			count(&d.plain, m.Value)
		case "reasoning":
			count(&d.reasoning, m.Value)
		case "reasoning_content":
			count(&d.old, m.Value)
		case "function_call":
			function(m.Value)
		case "tool_calls":
			calls, _ := m.Value.(array)
			for _, c := range calls {
				call, _ := c.(object)
				for _, m := range call {
					if m.Key == "function" {
						function(m.Value)
					}
				}
			}
		}
	}
}

func (d *doc) response(o object, event bool) {
	for _, m := range o {
		switch {
		case m.Key == "error":
			d.failed = d.failed || m.Value != nil
		case !event:
			d.responseBody(m)
		case m.Key == "type":
			d.named(&d.name, m.Value)
		case m.Key == "delta":
			count(&d.plain, m.Value)
		case m.Key == "response":
			if r, ok := m.Value.(object); ok {
				d.response(r, false)
			}
		}
	}
}

func (d *doc) responseBody(m member) {
	switch m.Key {
	case "usage":
		d.usageAt(m.Value, true)
	case "status":
		d.named(&d.status, m.Value)
	case "output":
		items, _ := m.Value.(array)
		for _, i := range items {
			item, _ := i.(object)
			for _, m := range item {
				if m.Key == "content" {
					d.texts(m.Value)
				}
			}
		}
	}
}

// named takes a name; an empty one is a name too.
func (d *doc) named(to *string, v any) {
	if s, ok := v.(string); ok {
		*to = s
		if s == "" {
			*to = "-"
		}
	}
}

// texts adds the text of blocks of content.
func (d *doc) texts(v any) {
	blocks, _ := v.(array)
	for _, b := range blocks {
		block, _ := b.(object)
		d.textsOf(block, "text", "thinking")
	}
}

func (d *doc) textsOf(o object, keys ...string) {
	for _, m := range o {
		if slices.Contains(keys, m.Key) {
			count(&d.plain, m.Value)
		}
	}
}

func (d *doc) message(o object) {
	for _, m := range o {
		switch m.Key {
		case "error":
			d.failed = d.failed || m.Value != nil
		case "type":
			d.named(&d.name, m.Value)
		case "usage":
			d.usageAt(m.Value, true)
		case "content":
			if !d.f.o.SSE {
				d.texts(m.Value)
			}
		case "delta", "message":
			if o, ok := m.Value.(object); ok && d.f.o.SSE {
				d.inMessage(m.Key, o)
			}
		}
	}
}

func (d *doc) inMessage(key string, o object) {
	if key == "delta" {
		d.textsOf(o, "text", "thinking", "partial_json")
		return
	}
	for _, m := range o {
		if m.Key == "usage" {
			d.usageAt(m.Value, false)
		}
	}
}

func (d *doc) usageAt(v any, top bool) {
	if d.keyed {
		if !d.duplicate {
			d.f.note(usage.Malformed)
		}
		d.duplicate = true
		return
	}
	d.keyed, d.top = true, top
	d.counts, d.created = usage.None(), usage.Unsaid
	switch v := v.(type) {
	case nil:
	case object:
		d.usage = true
		d.usageFields(v)
	default:
		d.f.note(usage.WrongType)
	}
}

func (d *doc) usageFields(o object) {
	in, out, inner, outer := "input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details"
	switch d.f.o.Format {
	case usage.Responses:
	case usage.Messages:
		inner, outer = "-", "-"
	case usage.Chat, usage.Completions, usage.Pooling, usage.Free:
		in, out, inner, outer = "prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"
	}
	for _, m := range o {
		switch {
		case m.Key == in:
			d.field(&d.counts.Prompt, "prompt", m.Value)
		case m.Key == out:
			d.field(&d.counts.Completion, "completion", m.Value)
		case m.Key == inner:
			d.detail(&d.counts.Cached, "cached_tokens", m.Value)
		case m.Key == outer:
			d.detail(&d.counts.Reasoning, "reasoning_tokens", m.Value)
		case m.Key == "cache_read_input_tokens" && d.f.o.Format == usage.Messages:
			d.field(&d.counts.Cached, "cached_tokens", m.Value)
		case m.Key == "cache_creation_input_tokens" && d.f.o.Format == usage.Messages:
			d.field(&d.created, "created", m.Value)
		}
	}
}

func (d *doc) detail(to *int64, key string, v any) {
	switch v := v.(type) {
	case nil:
	case object:
		for _, m := range v {
			if m.Key == key {
				d.field(to, key, m.Value)
			}
		}
	default:
		d.f.note(usage.WrongType)
	}
}

func (d *doc) field(to *int64, key string, v any) {
	if slices.Contains(d.fields, key) {
		d.f.note(usage.Malformed)
		*to = usage.Unsaid
		d.bad = true
		return
	}
	d.fields = append(d.fields, key)
	n, ok := v.(json.Number)
	if v == nil {
		return
	}
	s := n.String()
	i, err := strconv.ParseInt(s, 10, 64)
	switch {
	case !ok:
		d.f.note(usage.WrongType)
	case s[0] == '-':
		d.f.note(usage.Negative)
	case strings.ContainsAny(s, ".eE"):
		d.f.note(usage.Fractional)
	case err != nil:
		d.f.note(usage.Overflow)
	default:
		*to = i
		return
	}
	d.bad = true
}
