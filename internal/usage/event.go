package usage

import "bytes"

// event is what the name of an event, or the status of a response, means.
type event uint8

const (
	unnamed      event = iota // there is no name
	otherEvent                // nothing that matters here
	errorEvent                // "error"
	deltaEvent                // text of a response
	completed                 // "response.completed", "response.incomplete"
	failed                    // "response.failed", or a response's status
	messageStart              // "message_start"
	messageDelta              // "message_delta"
	messageStop               // "message_stop"
)

// eventNamed returns what name means; nil stands for one that is longer than
// all known ones.
func eventNamed(name []byte) event {
	switch string(name) {
	case "error":
		return errorEvent
	case "response.completed", "response.incomplete":
		return completed
	case "response.failed", "failed":
		return failed
	case "message_start":
		return messageStart
	case "message_delta":
		return messageDelta
	case "message_stop":
		return messageStop
	}
	// Audio is base64, not text.
	if bytes.HasPrefix(name, []byte("response.")) && bytes.HasSuffix(name, []byte(".delta")) && !bytes.HasSuffix(name, []byte("audio.delta")) {
		return deltaEvent
	}
	return otherEvent
}
