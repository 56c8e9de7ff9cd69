package ledger

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxPage is the most rows that one [Page] holds.
const MaxPage = 1000

// Page asks for rows newest first: for screens, where [Filter] is for exports.
type Page struct {
	Filter
	User, Model string    // "": every one
	Reason      EndReason // "": every end, and open requests
	RequestID   string    // "": every one; else the rows of this x-request-id
	// After is the cursor that the page before gave; "" begins with the newest. Rows
	// that come meanwhile do not move the pages that follow.
	After string
	Limit int // rows, from 1 to [MaxPage]
}

// Validate reports a page that makes no sense, as [ErrQuery].
func (p *Page) Validate() error {
	switch {
	case p.Limit < 1 || p.Limit > MaxPage:
		return fmt.Errorf("%w: limit is a whole number from 1 to %d", ErrQuery, MaxPage)
	case !p.Until.IsZero() && p.Until.Before(p.Since):
		return fmt.Errorf("%w: until is before since", ErrQuery)
	case p.Reason != "" && !p.Reason.known():
		return fmt.Errorf("%w: end_reason %q is none; docs/metering.md lists them", ErrQuery, p.Reason)
	}
	_, _, err := p.Position()
	return err
}

// Cursor names the row after which the next page begins.
func Cursor(r *Record) string {
	return strconv.FormatInt(r.StartedAt.UnixMicro(), 10) + "-" + r.LeaseID
}

// Position reads After: the start and the lease id of the last row of the page
// before; both zero where there was none. Error: [ErrQuery].
func (p *Page) Position() (started time.Time, leaseID string, err error) {
	if p.After == "" {
		return time.Time{}, "", nil
	}
	micros, lease, ok := strings.Cut(p.After, "-")
	n, err := strconv.ParseInt(micros, 10, 64)
	if !ok || err != nil || lease == "" {
		return time.Time{}, "", fmt.Errorf("%w: the cursor is none; it is next_cursor of the page before", ErrQuery)
	}
	return time.UnixMicro(n), lease, nil
}

// Selects reports whether a row is of the pages, whatever After and Limit say.
func (p *Page) Selects(r *Record) bool {
	return p.Match(r) && (p.User == "" || p.User == r.User) && (p.Model == "" || p.Model == r.Model) &&
		(p.Reason == "" || p.Reason == r.Reason) && (p.RequestID == "" || p.RequestID == r.RequestID)
}
