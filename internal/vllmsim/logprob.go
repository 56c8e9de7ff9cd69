package vllmsim

import (
	"strconv"
	"strings"
)

// logprob is the log probability of a token, by its text and its rank: made
// up, but always the same.
func logprob(piece string, rank int) string {
	h := hash64(piece) % 1000
	return pythonFloat(-(float64(h)/1000 + float64(rank)))
}

// alternative is the text of the token of that rank in place of piece.
func alternative(piece string, rank int) string {
	if rank == 0 {
		return piece
	}
	sentence := sentences[rank%len(sentences)]
	return sentence[int(hash64(piece)%sentenceTokens)]
}

func appendTokenLogprob(b []byte, piece string, rank int) []byte {
	b = appendString(append(b, `{"token":`...), piece)
	b = append(append(b, `,"logprob":`...), logprob(piece, rank)...)
	b = append(b, `,"bytes":[`...)
	for i := range len(piece) {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(piece[i]), 10)
	}
	return append(b, ']')
}

// appendChatLogprobs appends the logprobs of the tokens of c from the given
// one up to c.sent: null without them.
func appendChatLogprobs(b []byte, p *plan, c *choice, from int) []byte {
	if p.logs < 0 {
		return append(b, "null"...)
	}
	b = append(b, `{"content":[`...)
	for i := from; i < c.sent; i++ {
		if i > from {
			b = append(b, ',')
		}
		piece := c.prose.piece(i)
		b = append(appendTokenLogprob(b, piece, 0), `,"top_logprobs":[`...)
		for rank := range p.logs {
			if rank > 0 {
				b = append(b, ',')
			}
			b = append(appendTokenLogprob(b, alternative(piece, rank), rank), '}')
		}
		b = append(b, "]}"...)
	}
	return append(b, "]}"...)
}

// appendLogprobs is the same in the shape of /v1/completions.
func appendLogprobs(b []byte, p *plan, c *choice, from int) []byte {
	if p.logs < 0 {
		return append(b, "null"...)
	}
	var offsets, logs, tokens, tops []string
	at := len(c.prose.text(from))
	for i := from; i < c.sent; i++ {
		piece := c.prose.piece(i)
		offsets = append(offsets, strconv.Itoa(at))
		at += len(piece)
		logs = append(logs, logprob(piece, 0))
		tokens = append(tokens, string(appendString(nil, piece)))
		top := make([]string, 0, p.logs)
		for rank := range max(1, p.logs) {
			other := alternative(piece, rank)
			top = append(top, string(appendString(nil, other))+":"+logprob(other, rank))
		}
		tops = append(tops, "{"+strings.Join(top, ",")+"}")
	}
	join := func(name string, v []string) string { return name + "[" + strings.Join(v, ",") + "]" }
	b = append(b, join(`{"text_offset":`, offsets)...)
	b = append(b, join(`,"token_logprobs":`, logs)...)
	b = append(b, join(`,"tokens":`, tokens)...)
	b = append(b, join(`,"top_logprobs":`, tops)...)
	return append(b, '}')
}

// appendPromptLogprobs appends what prompt_logprobs asks for: null without it.
func appendPromptLogprobs(b []byte, p *plan, q *prompt) []byte {
	if p.plogs < 0 {
		return append(b, "null"...)
	}
	b = append(b, "[null"...)
	pieces := split(q.text)
	for _, piece := range pieces[min(1, len(pieces)):] {
		b = append(b, ",{"...)
		for rank := range p.plogs + 1 {
			if rank > 0 {
				b = append(b, ',')
			}
			other := alternative(piece, rank)
			b = append(b, '"')
			b = strconv.AppendInt(b, tokenID(other)+int64(rank)*vocabulary, 10)
			b = append(append(b, `":{"logprob":`...), logprob(other, rank)...)
			b = appendInt(b, `,"rank":`, rank+1)
			b = append(appendString(append(b, `,"decoded_token":`...), other), '}')
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

// appendIDs appends token ids as a list, or null when they were not asked for.
func appendIDs(b []byte, wanted bool, ids []int64) []byte {
	if !wanted {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, id, 10)
	}
	return append(b, ']')
}

// ids are those of the tokens of c from the given one up to c.sent.
func (c *choice) ids(from int) []int64 {
	var ids []int64
	for i := from; i < c.sent; i++ {
		piece := c.prose.piece(i)
		if piece == "" {
			ids = append(ids, 0)
			continue
		}
		ids = append(ids, tokenID(piece))
	}
	return ids
}
