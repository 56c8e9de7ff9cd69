package limit

import (
	"math"
	"time"
)

// debtSpan is how many limits a debt may be at most, each a minute.
const debtSpan = 60

// debt is a bucket that leaks limit ÷ 60 tokens a second and holds one limit:
// what stands above its brim is owed; see [Store.Owe]. The zero value is empty
// and knows no limit.
type debt struct {
	unpaid float64 // tokens in the bucket and above it
	at     instant // when it was that much
	limit  int64   // of the key's last decision; below 1: none
}

// pay brings the debt to now.
func (d *debt) pay(now instant) {
	if d.unpaid > 0 && now > d.at {
		d.unpaid = max(0, d.unpaid-float64(d.limit)*(now-d.at).Minutes())
	}
	d.at = max(d.at, now)
}

// under notes the limit of a decision.
func (d *debt) under(limit int64, now instant) {
	if d.limit != limit {
		d.pay(now)
		d.limit = limit
		d.cut()
	}
}

func (d *debt) cut() { d.unpaid = min(d.unpaid, (1+debtSpan)*float64(max(d.limit, 0))) }

// grow takes in tokens that were used; below 0 they were not used after all.
func (d *debt) grow(tokens int64, now instant) {
	if d.limit < 1 {
		return
	}
	d.pay(now)
	d.unpaid = max(0, d.unpaid+float64(tokens))
	d.cut()
}

// raise makes the unpaid tokens so many at least.
func (d *debt) raise(tokens int64, now instant) {
	d.pay(now)
	d.unpaid = max(d.unpaid, float64(bounded(tokens)))
	d.cut()
}

// dust is the part of a token that is no debt: who waits as long as was said must
// not be refused for the rounding of a sum.
const dust = 1e-6

// owed is what stands above the brim.
func (d *debt) owed(now instant) float64 {
	d.pay(now)
	if over := d.unpaid - float64(d.limit); d.limit > 0 && over > dust {
		return over
	}
	return 0
}

// wait is how long until nothing is owed.
func (d *debt) wait(now instant) time.Duration {
	owed := d.owed(now)
	if owed <= 0 {
		return 0
	}
	return time.Duration(math.Ceil(owed / float64(d.limit) * float64(time.Minute)))
}

// tokens is the debt in whole tokens.
func (d *debt) tokens(now instant) int64 { return int64(math.Ceil(d.owed(now))) }

// Use is what a key used in one second, ago before now.
type Use struct {
	Ago    time.Duration
	Tokens int64
}

// DebtSpan is how far back use can make a debt that is not paid yet.
const DebtSpan = (1 + debtSpan) * time.Minute

// Unpaid is what use, oldest first, has left unpaid under a limit.
func Unpaid(uses []Use, limit int64) int64 {
	const now = origin + DebtSpan
	d := debt{limit: limit}
	for _, u := range uses {
		if u.Ago <= DebtSpan {
			d.grow(u.Tokens, now-max(u.Ago, 0))
		}
	}
	d.pay(now)
	return int64(math.Ceil(d.unpaid))
}
