package limit

import "math"

const (
	// fitDecay is how fast old samples fade: the last 100 or so count.
	fitDecay = 0.99
	// typicalBytes is where a prompt's length begins to matter for its tokens:
	// the error of longer ones counts relative to their length, that of shorter
	// ones as it is.
	typicalBytes = 200
	// priorSamples is the weight of what a key begins with.
	priorSamples = 0.5
	// surprise bounds how far one sample may lie from what was expected, so that
	// none moves the line by itself (a picture behind a short address).
	surprise, surpriseTokens = 4, 64
	// maxOverhead is the longest chat template and tool preamble that is believed.
	maxOverhead = 4096

	// indifferent is how many keys' votes the start value has: 20 of them bound
	// what one key, whose vote is at most a factor of voteFactor off, can move.
	indifferent = 20
	voteFactor  = 4
	// votesAt is how many samples a key needs for its vote.
	votesAt = 10
)

// guess is a line: tokens of one prompt = overhead + bytes × ratio.
type guess struct{ overhead, ratio float64 }

// start is what is guessed before anything was learned.
var start = guess{ratio: startRatio}

// tokens is the guess for all prompts together, rounded up.
func (g guess) tokens(bytes, prompts int64) int64 {
	if bytes <= 0 {
		return 0
	}
	return int64(math.Ceil(min(float64(bytes)*g.ratio+g.overhead*float64(prompts), float64(maxTokens))))
}

// line is a least-squares fit of tokens by bytes whose samples fade. Its
// overhead is learned by each key from nothing: a neighbour's template must
// not show in another key's bill.
type line struct {
	w, x, y, xx, xy float64 // weighted sums
	seen            int64
	vote            vote
}

// learn takes in one prompt.
func (l *line) learn(bytes, tokens float64) {
	expected := start
	if l.seen > 0 {
		expected = l.fit(startRatio)
	}
	y := expected.overhead + expected.ratio*bytes
	tokens = min(max(tokens, y/surprise), y*surprise+surpriseTokens)
	w := 1 / ((bytes + typicalBytes) * (bytes + typicalBytes))
	l.w = l.w*fitDecay + w
	l.x = l.x*fitDecay + w*bytes
	l.y = l.y*fitDecay + w*tokens
	l.xx = l.xx*fitDecay + w*bytes*bytes
	l.xy = l.xy*fitDecay + w*bytes*tokens
	l.seen++
}

// fit returns the line that explains the samples best, drawn to a ratio and to
// no overhead where they say little.
func (l *line) fit(ratio float64) guess {
	const weight = priorSamples / (typicalBytes * typicalBytes)
	w, xx := l.w+weight, l.xx+priorSamples
	xy := l.xy + priorSamples*ratio
	// The determinant is above 0: the prior alone makes it so.
	det := w*xx - l.x*l.x
	g := guess{overhead: (l.y*xx - l.x*xy) / det}
	g.overhead = min(max(g.overhead, 0), maxOverhead)
	g.ratio = min(max((xy-g.overhead*l.x)/xx, minRatio), maxRatio)
	return g
}

// share is tokens over bytes of output text, of sums that fade.
type share struct {
	tokens, bytes float64
	seen          int64
	vote          vote
}

// textPrior is the weight of what a key begins with, textCap that of the
// longest answer, in bytes.
const textPrior, textCap = 512, 8 << 10

func (r *share) learn(bytes, tokens float64) {
	weight := min(bytes, textCap)
	r.tokens = r.tokens*fitDecay + min(max(tokens/bytes, minText), maxText)*weight
	r.bytes = r.bytes*fitDecay + weight
	r.seen++
}

func (r *share) value(before float64) float64 {
	return (r.tokens + before*textPrior) / (r.bytes + textPrior)
}

// votes is a value on which keys agree: the geometric mean of one vote for each
// key and [indifferent] votes for the start value. However much a key sends,
// it has one vote, which is bounded: alone it moves the value by
// voteFactor^(1/(indifferent+1)), 7 %.
type votes struct {
	sum   float64 // of logarithms, relative to the start value
	count float64
}

type vote struct {
	log  float64
	cast bool
}

// cast replaces a key's vote.
func (v *votes) cast(own *vote, value float64, seen int64) {
	if seen < votesAt {
		return
	}
	v.take(own)
	bound := math.Log(voteFactor)
	*own = vote{min(max(math.Log(value/startRatio), -bound), bound), true}
	v.sum += own.log
	v.count++
}

// take removes a key's vote.
func (v *votes) take(own *vote) {
	if own.cast {
		v.sum -= own.log
		v.count--
		*own = vote{}
	}
}

// center is the value that the votes agree on.
func (v *votes) center() float64 {
	return startRatio * math.Exp(v.sum/(v.count+indifferent))
}
