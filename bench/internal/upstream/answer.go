package upstream

import (
	"fmt"
	"strconv"
	"sync"
)

// The shapes are vLLM 0.32's, recorded from it; the text of every chunk is the
// time at which it was written.
const (
	idDigits   = 16
	timeDigits = 19

	idHole   = "0000000000000000"
	timeHole = "0000000000000000000"

	chunkHead  = `data: {"id":"chatcmpl-` + idHole + `","object":"chat.completion.chunk","created":1795502288,"model":"` + Model + `","choices":[`
	streamHead = "HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 06:38:08 GMT\r\nserver: uvicorn\r\n" +
		"content-type: text/event-stream; charset=utf-8\r\nvary: Origin\r\ntransfer-encoding: chunked\r\n\r\n"
	jsonHead = "HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 06:38:08 GMT\r\nserver: uvicorn\r\n" +
		"content-type: application/json\r\nvary: Origin\r\ncontent-length: "
)

// Model is the name of the only model.
const Model = "bench"

// frame is prepared bytes with two holes: the id at idAt, and the time at
// timeAt where there is one.
type frame struct {
	bytes        []byte
	idAt, timeAt int // timeAt 0: no time
}

// frameKey names a frame: chunk i of a stream, the last one with what follows.
type frameKey struct {
	i           int // 0: the headers and the chunk with the role
	usage, last bool
}

// frames are made once, when they are first needed, and only read afterwards.
type frames struct{ made sync.Map }

func (f *frames) get(k frameKey) *frame {
	if v, ok := f.made.Load(k); ok {
		return v.(*frame) //nolint:errcheck,forcetypeassert // frames are all that is stored
	}
	v, _ := f.made.LoadOrStore(k, newFrame(k))
	return v.(*frame) //nolint:errcheck,forcetypeassert // as above
}

func newFrame(k frameKey) *frame {
	if k.i == 0 {
		role := chunkHead + `{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]` +
			running(k.usage, 0) + `,"prompt_token_ids":null,"prompt_text":null}`
		head := []byte(streamHead)
		b, at := appendEvent(head, role)
		return &frame{bytes: b, idAt: at + len(`data: {"id":"chatcmpl-`)}
	}
	finish := "null"
	if k.last {
		finish = `"stop","stop_reason":null`
	}
	text := chunkHead + `{"index":0,"delta":{"content":" ` + timeHole + `"},"logprobs":null,"finish_reason":` + finish +
		`,"token_ids":null}]` + running(k.usage, k.i) + "}"
	b, at := appendEvent(nil, text)
	f := &frame{idAt: at + len(`data: {"id":"chatcmpl-`), timeAt: at + len(chunkHead) + len(`{"index":0,"delta":{"content":" `)}
	if k.last {
		if k.usage {
			b, _ = appendEvent(b, chunkHead+`],"usage":{`+counts(k.i)+`},"system_fingerprint":"vllm-0.32.0-6afc9922"}`)
		}
		b, _ = appendEvent(b, "data: [DONE]")
		b = append(b, "0\r\n\r\n"...)
	}
	f.bytes = b
	return f
}

func counts(completion int) string {
	return fmt.Sprintf(`"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d`, PromptTokens, PromptTokens+completion, completion)
}

func running(on bool, completion int) string {
	if !on {
		return ""
	}
	return `,"usage":{` + counts(completion) + `,"completion_tokens_details":null}`
}

// appendEvent appends one event as one HTTP chunk and tells where it begins.
func appendEvent(b []byte, event string) (out []byte, at int) {
	b = strconv.AppendInt(b, int64(len(event)+2), 16)
	b = append(b, "\r\n"...)
	at = len(b)
	b = append(b, event...)
	return append(b, "\n\n\r\n"...), at
}

// appendTo appends the frame with its holes filled in.
func (f *frame) appendTo(b []byte, id uint64, now int64) []byte {
	at := len(b)
	b = append(b, f.bytes...)
	for i := idDigits - 1; i >= 0; i-- {
		b[at+f.idAt+i] = "0123456789abcdef"[id&15]
		id >>= 4
	}
	if f.timeAt > 0 {
		for i := timeDigits - 1; i >= 0; i-- {
			b[at+f.timeAt+i] = byte('0' + now%10)
			now /= 10
		}
	}
	return b
}

// whole is an answer that is not streamed.
func whole(tokens int, now int64) []byte {
	body := fmt.Sprintf(`{"id":"chatcmpl-`+idHole+`","object":"chat.completion","created":1795502288,"model":"`+Model+
		`","choices":[{"index":0,"message":{"role":"assistant","content":" %0*d","refusal":null,"annotations":null,"audio":null,`+
		`"function_call":null,"reasoning":null},"logprobs":null,"finish_reason":"stop","stop_reason":null,"token_ids":null}],`+
		`"service_tier":null,"system_fingerprint":null,"usage":{%s,"prompt_tokens_details":null,"completion_tokens_details":null},`+
		`"prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null,"kv_transfer_params":null}`, timeDigits, now, counts(tokens))
	return []byte(jsonHead + strconv.Itoa(len(body)) + "\r\n\r\n" + body)
}

// simple is a small answer of another kind.
func simple(status, contentType, body string) []byte {
	return []byte("HTTP/1.1 " + status + "\r\ncontent-type: " + contentType + "\r\ncontent-length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body)
}
