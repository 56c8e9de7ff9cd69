package admission

import (
	"sync/atomic"

	"tollgate/internal/usage"
)

// tally holds the running counts of one answer. The holder of the answer writes
// them for each chunk; the checkpoints and the attribution read them. The
// zero value has counted nothing.
type tally struct {
	prompt, completion atomic.Int64
	flushed            atomic.Int64 // completion at the last checkpoint
	written            atomic.Int64 // prompt + completion at the last checkpoint
	firstByte          atomic.Int64 // monotonic ns after the start; 0 = none yet

	most  bounds       // set before the answer begins
	whole *wholeAnswer // of an answer that tells its tokens at its end; set before it begins
}

// checkpointTokens is how many tokens a stream may run ahead of its
// checkpoint before the flusher is woken (every 64 tokens or 250 ms).
const checkpointTokens = 64

// count takes over the running counts, except for those that cannot be true. It
// reports whether a checkpoint is due before its time.
func (t *tally) count(prompt, completion int64) (due bool) {
	if prompt >= 0 && prompt <= t.most.prompt {
		t.prompt.Store(prompt)
	}
	if completion < 0 || completion > t.most.completion {
		return false
	}
	t.completion.Store(completion)
	return completion-t.flushed.Load() >= checkpointTokens
}

// counts are the running counts, as an account.
func (t *tally) counts() usage.Counts {
	return usage.Counts{
		Prompt: t.prompt.Load(), Completion: t.completion.Load(), Cached: usage.Unsaid, Reasoning: usage.Unsaid,
	}
}
