package extauthz

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"tollgate/internal/admission"
	"tollgate/internal/openai"
	"tollgate/internal/route"
)

// refused returns the refusal of a request that no route accepts from any client; nil
// where a route accepts it.
func (s *Server) refused(c *check) *admission.DenialError {
	switch {
	case c.grpc():
		return admission.Deny(admission.UnsupportedMedia)
	case c.headers.upgrade != "":
		return admission.Deny(admission.OtherProtocol)
	case len(c.route.Methods) == 0, !c.route.Behind(c.door):
		d := admission.Deny(admission.NotFound)
		d.Message = hint(c.path)
		return d
	case !slices.Contains(c.route.Methods, c.method):
		d := admission.Deny(admission.WrongMethod)
		d.Allow = c.route.Allow()
		return d
	case s.o.MaxBody > 0 && tooLarge(c.headers.contentLength, s.o.MaxBody):
		return admission.Deny(admission.TooLarge)
	}
	return nil
}

// hint tells the usual mistakes in a path from others; "" for those.
func hint(path string) string {
	path, _, _ = strings.Cut(path, "?")
	const base = "the base URL of OpenAI clients is http://HOST/v1, that of Anthropic clients http://HOST"
	if strings.HasPrefix(path, "/v1/v1/") {
		return "Unknown path: it begins with /v1 twice; " + base + "."
	}
	if bare := strings.TrimRight(path, "/"); bare != path && len(route.Of(bare).Methods) > 0 {
		return "Unknown path: it ends in a slash; send it without; " + base + "."
	}
	if len(route.Of(strings.TrimPrefix(path, "/v1")).Methods) > 0 || len(route.Of("/v1"+path).Methods) > 0 {
		return "Unknown path, but there is one with or without /v1; " + base + "."
	}
	return ""
}

// grpc reports a request whose refusal Envoy itself would send with the status 200.
func (c *check) grpc() bool {
	const kind = "application/grpc"
	t := c.headers.contentType
	return len(t) >= len(kind) && strings.EqualFold(t[:len(kind)], kind)
}

func tooLarge(contentLength string, most int64) bool {
	n, err := strconv.ParseInt(contentLength, 10, 64)
	return err == nil && n > most || errors.Is(err, strconv.ErrRange)
}

// preflight reports a browser's question whether a page may send a request. It is
// answered for paths that do not exist too, so that the page can read the error.
func (s *Server) preflight(c *check) bool {
	h := &c.headers
	return c.method == "OPTIONS" && h.preflight != "" && len(h.origin) == 1 && !c.route.SameOrigin && c.door != route.Private && !c.grpc() && h.upgrade == "" &&
		(slices.Contains(s.o.AllowOrigins, "*") || slices.Contains(s.o.AllowOrigins, h.origin[0]))
}

// shape is the endpoint whose errors the client understands.
func (c *check) shape() openai.Endpoint {
	path, _, _ := strings.Cut(c.path, "?")
	switch ep := openai.Endpoint(c.route.Endpoint); {
	case strings.HasPrefix(path, string(openai.Messages)+"/"), ep == route.Models && c.headers.anthropicVersion != "":
		return openai.Messages
	default:
		return ep
	}
}
