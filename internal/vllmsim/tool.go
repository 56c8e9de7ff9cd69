package vllmsim

import (
	"encoding/json"
	"net/http"
	"strings"
)

// toolCall is a choice that calls a tool. Its first tokens open the call and
// give no chunk, except that the last of them gives the name; then one for
// every piece of the arguments; the last one closes the call. The chunk that
// ends the choice, at its bound too, carries no arguments.
type toolCall struct {
	id, name string
	args     []string
}

const finishTools = "tool_calls"

// toolHead and toolTail are the tokens around the arguments.
const (
	toolHead = 8
	toolTail = 1
)

func (t *toolCall) tokens() int { return toolHead + len(t.args) + toolTail }

// checkTools refuses what needs a parser when there is none.
func (x *exchange) checkTools() *problem {
	raw, given := x.f.get("tool_choice")
	_, tools := x.f.get("tools")
	if x.sim.opts.ToolParser || !given && !tools {
		return nil
	}
	var name string
	switch {
	case !given || string(raw) == `"auto"`:
		return badRequest("", `"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set`)
	case string(raw) == `"none"`:
		return nil
	case string(raw) == `"required"`:
		return badRequest("", `tool_choice="required" requires --tool-call-parser to be set`)
	}
	name, _ = chosenTool(raw)
	return badRequest("", `tool_choice=function "%s" requires --tool-call-parser to be set`, name)
}

// chosenTool is the name in a tool_choice object.
func chosenTool(raw json.RawMessage) (string, bool) {
	var choice struct {
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	}
	if json.Unmarshal(raw, &choice) != nil || choice.Function.Name == "" {
		return "", false
	}
	return choice.Function.Name, true
}

type toolDefinition struct {
	Function struct {
		Name       string `json:"name"`
		Parameters schema `json:"parameters"`
	} `json:"function"`
}

// planTools turns the choices into calls where the request forces one.
func (x *exchange) planTools(p *plan) *problem {
	raw, tools := x.f.get("tools")
	if !tools {
		return nil
	}
	choice, _ := x.f.get("tool_choice")
	var defined []toolDefinition
	if json.Unmarshal(raw, &defined) != nil {
		return invalid("body.tools", "list_type", "Input should be a valid list", repr(raw))
	}
	if len(defined) == 0 {
		return nil // no tools: clients send an empty list
	}
	tool := defined[0]
	switch string(choice) {
	case "", `"auto"`:
		if !x.script.ToolCall {
			return nil
		}
	case `"none"`:
		return nil
	case `"required"`:
	default:
		name, ok := chosenTool(choice)
		found := false
		for _, t := range defined {
			if t.Function.Name == name {
				tool, found = t, true
			}
		}
		if !ok || !found {
			return &problem{
				status: http.StatusBadRequest, kind: kindValidation, param: "body",
				message: "1 validation error:\n  Value error, The tool specified in `tool_choice` does not match any of the specified `tools`",
			}
		}
	}
	bounded := x.bounded()
	for _, c := range p.choices {
		c.tool = &toolCall{id: "chatcmpl-tool-" + randomHex(8), name: tool.Function.Name, args: split(tool.Function.Parameters.sample())}
		c.stop = ""
		if n := c.tool.tokens(); n <= c.limit || !bounded {
			c.limit, c.finish = n, finishTools
		} else {
			c.finish = "length"
		}
	}
	return nil
}

// bounded tells whether the client set a bound of its own.
func (x *exchange) bounded() bool {
	_, a := x.f.get("max_tokens")
	_, b := x.f.get("max_completion_tokens")
	return a || b
}

// whole is the tool_calls field of a message, with the comma before it.
func (t *toolCall) whole() string {
	b := appendString([]byte(`,"tool_calls":[{"id":`), t.id)
	b = appendString(append(b, `,"type":"function","function":{"name":`...), t.name)
	b = appendString(append(b, `,"arguments":`...), strings.Join(t.args, ""))
	return string(append(b, "}}]"...))
}

// unparsed is the text of the first n tokens of a call that never closed.
func (t *toolCall) unparsed(n int) string {
	args := max(0, min(n-1-toolHead, len(t.args)))
	name := string(appendString(nil, t.name))
	return "<tool_call>\n{\"name\": " + name + ", \"arguments\": " + strings.Join(t.args[:args], "")
}

// toolToken writes the chunk of the last token of a call, if it has one.
func (d *chatDialect) toolToken(e *emitter, c *choice) {
	var delta []byte
	at := c.sent - toolHead
	switch {
	case at == 0:
		delta = appendString([]byte(`"content":null,"tool_calls":[{"id":`), c.tool.id)
		delta = appendString(append(delta, `,"type":"function","index":0,"function":{"name":`...), c.tool.name)
		delta = append(delta, "}}]"...)
	case at > 0 && at <= len(c.tool.args) && !c.over:
		delta = appendString([]byte(`"content":null,"tool_calls":[{"index":0,"function":{"arguments":`), c.tool.args[at-1])
		delta = append(delta, "}}]"...)
	case !c.over:
		return
	}
	d.write(e, c, string(delta), false)
}
