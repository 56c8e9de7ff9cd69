package openai

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"tollgate/internal/media"
)

// memberValue reads the value of an object's member. inMedia means that the object has
// a URL under "url".
//
// An engine fetches the URLs under image_url, audio_url, video_url and file_url (a
// string, or {"url": …}) and under "url" of an Anthropic source, at any depth of a
// message, of a tool's result or of a document.
func (s *scanner) memberValue(key []byte, inMedia bool) error {
	s.inMedia = false
	if s.media != nil {
		named := isURL(key)
		switch next := s.peek(); {
		case next == '"' && (named || inMedia && string(key) == "url"):
			return s.url()
		case next == '{':
			s.inMedia = named || string(key) == "source"
		}
	}
	_, err := s.value(isMedia(key))
	s.inMedia = false
	return err
}

func isURL(key []byte) bool {
	switch string(key) {
	case "image_url", "audio_url", "video_url", "file_url", "input_image":
		return true
	}
	return false
}

// url reads a string that an engine would fetch from.
func (s *scanner) url() error {
	start := s.pos
	raw, size, escaped, err := s.str()
	if err != nil {
		return err
	}
	s.textBytes += int64(min(size, mediaBytes))
	const data = "data:"
	if len(raw) == 0 || len(raw) >= len(data) && strings.EqualFold(string(raw[:len(data)]), data) {
		return nil // a picture named by its uuid, or one inside the body
	}
	const longest = 64 << 10 // bytes; a longer URL is read only up to there
	raw = raw[:cutEscape(raw, longest)]
	if escaped {
		raw = unescape(raw)
	}
	if err := s.media.Check(string(raw)); err != nil {
		return &BadRequestError{Message: refusedURL(err), Param: paramAt(s.buf, start)}
	}
	return nil
}

// cutEscape is a place at most n from the start of raw, not inside an escape.
func cutEscape(raw []byte, n int) int {
	if len(raw) <= n {
		return len(raw)
	}
	for i := 0; ; {
		step := 1
		if raw[i] == '\\' {
			_, step = escape(raw[i:])
		}
		if i+step > n {
			return i
		}
		i += step
	}
}

// refusedURL is an error for the client; it contains nothing of the URL.
func refusedURL(err error) string {
	why := err.Error()
	if errors.Is(err, media.ErrPrivate) {
		why = "it does not name a host on the public internet"
	}
	return "This URL may not be fetched: " + why + ". What may be used is set by request.media_domains; send the content itself as a 'data:' URL instead."
}

// paramAt names the value that begins at a place of a document that was read up
// to there: messages[0].content[1].image_url.url.
func paramAt(document []byte, place int) string {
	d := jsontext.NewDecoder(bytes.NewBuffer(document), jsontext.AllowDuplicateNames(true))
	for d.InputOffset() <= int64(place) {
		if _, err := d.ReadToken(); err != nil {
			break
		}
	}
	var b strings.Builder
	for token := range d.StackPointer().Tokens() {
		switch _, err := strconv.Atoi(token); {
		case err == nil:
			token = "[" + token + "]"
		case strings.Trim(strings.ToLower(token), "abcdefghijklmnopqrstuvwxyz0123456789_") != "":
			token = ".?" // a client chose this name; it is not repeated
		case b.Len() > 0:
			token = "." + token
		}
		b.WriteString(token)
	}
	const longest = 256 // bytes, all of them ASCII
	return b.String()[:min(b.Len(), longest)]
}
