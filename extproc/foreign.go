package extproc

import (
	"tollgate/internal/openai"
)

// longestForeign is the largest error body of an engine that is looked at, in
// bytes: what a server around vLLM says is short.
const longestForeign = 4 << 10

// foreign collects the error body of an engine that may have another shape than
// OpenAI's.
type foreign struct{ held []byte }

// engineError answers the headers of an engine's error. A short body in JSON is
// looked at: what a server around vLLM says of an unknown route is not the error
// that clients read.
func (x *exchange) engineError(h *head, end bool, set []openai.Header) *outbound {
	if end || h.kind != jsonBody || h.contentLength <= 0 || h.contentLength > longestForeign {
		return responseHeaders(set, bodyNone)
	}
	x.foreign = new(foreign)
	return streamHeaders(set) // its length may change
}

// reshape passes the body on at its end, in the shape of our errors if it has
// another.
func (x *exchange) reshape(chunk []byte, last bool) *outbound {
	f := x.foreign
	f.held = append(f.held, chunk...)
	if !last {
		return x.replaceChunk(nil)
	}
	if body, changed := openai.Reshape(x.endpoint, x.status, f.held); changed {
		return x.replaceChunk(body)
	}
	return x.replaceChunk(f.held)
}
