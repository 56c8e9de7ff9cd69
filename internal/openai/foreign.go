package openai

import (
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Reshape gives an engine's error body the shape that clients read. It returns false
// for a body that has this shape already ({"error": {"message": …}}) and for one that
// is no JSON object. The web server around vLLM writes such bodies: {"detail": "Not
// Found"} for a route that its model does not have, {"error": "Unauthorized"}.
func Reshape(ep Endpoint, status int, body []byte) ([]byte, bool) {
	var said map[string]jsontext.Value
	if json.Unmarshal(body, &said) != nil || said == nil || said["error"].Kind() == '{' {
		return nil, false
	}
	typ, code := typeInvalid, codeInvalid
	switch {
	case status == http.StatusNotFound:
		code = codeNotFound
	case status == http.StatusMethodNotAllowed:
		code = codeMethod
	case status == http.StatusTooManyRequests:
		typ, code = typeRate, codeRate
	case status >= http.StatusInternalServerError:
		typ, code = typeServer, codeEngine
	}
	text := foreignText(said)
	if text == "" {
		text = http.StatusText(status)
	}
	message := "The model server answered: " + strings.TrimSuffix(text, ".") + "."
	if status == http.StatusNotFound || status == http.StatusMethodNotAllowed {
		message += " Its model may not support this route."
	}
	return Body(ep, message, typ, "", code), true
}

// foreignText is the sentence in such a body.
func foreignText(said map[string]jsontext.Value) string {
	for _, name := range []string{"detail", "error", "message"} {
		var text string
		if json.Unmarshal(said[name], &text) == nil && text != "" {
			return text
		}
		var list []struct {
			Message string `json:"msg"`
		}
		if json.Unmarshal(said[name], &list) == nil && len(list) > 0 && list[0].Message != "" {
			return list[0].Message
		}
	}
	return ""
}
