package vllmsim

import "strings"

// sentenceTokens is the length of every sentence below, so that the token at
// any position is found without making the ones before it, and the default
// answer of two sentences ends with a full stop.
const sentenceTokens = 16

// defaultTokens is the length of an answer that nobody bounded.
const defaultTokens = 2 * sentenceTokens

// sentences are what the simulator says. The first one opens every answer; the
// others follow in an order chosen by the hash of the prompt. Their number
// without the first is prime, so that any step visits them all.
const sentenceCount = 14

var sentences = cut(
	" This answer comes from a simulated model, so no graphics card was needed today.",
	" Every word you read here is one token, and each of them was counted.",
	" The text is plain filler, chosen by a hash of the prompt you sent.",
	" Ask the same question again and the very same sentences will come back to you.",
	" Point the gateway at a real engine and these lines turn into real answers instead.",
	" A slow river carries small boats past the old mill while the evening light fades.",
	" The baker opens her shop before dawn, and the street smells of warm bread.",
	" Two cats sleep on the window sill, quite sure that nobody is watching them.",
	" A good map shows the roads, but it leaves the walking to the traveller.",
	" Rain fell all morning, so the garden was green and bright by the afternoon.",
	" The library keeps its doors open late for readers who prefer the quiet evening hours.",
	" Counting carefully is dull work, which is why a machine does it for us.",
	" When the last token has been sent, the stream says so and then ends.",
	" Somewhere far away a large graphics card hums, unaware of this little conversation here.",
)

func cut(lines ...string) [][]string {
	out := make([][]string, len(lines))
	for i, line := range lines {
		out[i] = split(line)
	}
	return out
}

// prose is an endless or a given sequence of tokens.
type prose struct {
	seed uint64
	// given replaces the sentences when it is not nil; past its end there is
	// no text.
	given []string
	// emptyEvery makes every k-th token one without text, as a partial UTF-8
	// sequence is; 0 never.
	emptyEvery int
}

// piece is the text of token i.
func (p *prose) piece(i int) string {
	if p.emptyEvery > 0 && (i+1)%p.emptyEvery == 0 {
		return ""
	}
	if p.given != nil {
		if i < len(p.given) {
			return p.given[i]
		}
		return ""
	}
	if i == 0 {
		return sentences[0][0][1:]
	}
	number, at := i/sentenceTokens, i%sentenceTokens
	if number == 0 {
		return sentences[0][at]
	}
	const rest = sentenceCount - 1
	step := 1 + p.seed/rest%(rest-1)
	which := 1 + (p.seed%rest+uint64(number-1)%rest*step)%rest //nolint:gosec // number is at least 1
	return sentences[which][at]
}

// text joins the first n tokens.
func (p *prose) text(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(p.piece(i))
	}
	return b.String()
}

// stopAt ends the prose where one of stops appears within its first limit
// tokens, as vLLM does: the token that completes the stop string is generated,
// its text is not shown. It returns the new limit and the string that stopped
// it, "" for none.
func (p *prose) stopAt(limit int, stops []string) (newLimit int, stop string) {
	var whole strings.Builder
	for i := range limit {
		whole.WriteString(p.piece(i))
		text := whole.String()
		for _, s := range stops {
			at := strings.Index(text, s)
			if s == "" || at < 0 {
				continue
			}
			p.given = shorten(p, i+1, at)
			p.emptyEvery = 0
			return i + 1, s
		}
	}
	return limit, ""
}

// shorten is the first n tokens with all text after byte end taken away.
func shorten(p *prose, n, end int) []string {
	out := make([]string, n)
	for i := range n {
		piece := p.piece(i)
		out[i] = piece[:min(len(piece), end)]
		end -= len(out[i])
	}
	return out
}
