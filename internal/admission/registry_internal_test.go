package admission

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestTheRegistryKeepsNothingOfWhatIsOver: by lease, by request, or of late entries.
func TestTheRegistryKeepsNothingOfWhatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSessions()
		s := &Session{facts: Facts{LeaseID: "l", RequestID: "r"}}
		if !r.issue(s) || r.get("l") != s {
			t.Fatal("the session was not kept")
		}
		r.forget(s, true)
		if len(r.byLease)+len(r.tickets) != 0 {
			t.Errorf("kept: %d leases, %d tickets", len(r.byLease), len(r.tickets))
		}
		if _, late := r.logged(&Witness{LeaseID: "l"}); !late {
			t.Error("a late entry would make a second record")
		}
		time.Sleep(recordedFor + time.Second)
		r.expire()
		if len(r.recorded) != 0 {
			t.Errorf("%d recorded leases are kept", len(r.recorded))
		}
		for range 3 * leftMost {
			r.logged(&Witness{RequestID: time.Now().String(), Cause: CauseClient})
			time.Sleep(time.Millisecond)
		}
		if len(r.left) != leftMost {
			t.Errorf("%d requests that left are kept, want %d", len(r.left), leftMost)
		}
	})
}
