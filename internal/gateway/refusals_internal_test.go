package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tollgate/internal/admission"
)

func refusedFrom(addr string, status int) admission.Access {
	return admission.Access{Witness: admission.Witness{Method: "GET", Endpoint: "other", Status: status, ClientAddr: addr}}
}

// lines are those of a log, decoded.
func lines(t *testing.T, out *bytes.Buffer) (all []map[string]any) {
	t.Helper()
	for text := range strings.Lines(out.String()) {
		var l map[string]any
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		all = append(all, l)
	}
	return all
}

// watched runs fn with a recorder whose accounts are written, and returns its lines.
func watched(t *testing.T, fn func(r *recorder)) []map[string]any {
	t.Helper()
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder(prometheus.NewRegistry(), &out)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = r.refused.Run(ctx) }()
		fn(r)
		cancel()
		<-done
	})
	return lines(t, &out)
}

func TestAFloodOfRefusalsIsAFewLinesASecond(t *testing.T) {
	const seconds, each = 10, 2600
	var counted float64
	got := watched(t, func(r *recorder) {
		for range seconds {
			for i := range each {
				r.record(refusedFrom("192.0.2.1", []int{404, 405}[i%2]))
				if i%1000 == 0 {
					r.record(finished()) // who pays has a line
				}
			}
			time.Sleep(refusedWindow)
			synctest.Wait()
		}
		counted = testutil.ToFloat64(r.requests.WithLabelValues("GET", "other", "404"))
	})
	own, summed, paid := 0, 0, 0
	for _, l := range got {
		n, sum := l["requests"].(float64)
		switch {
		case sum:
			summed += int(n)
			wantSummary(t, l)
		case l["key_id"] != "":
			paid++
		default:
			own++
		}
	}
	if own+summed != seconds*each || own > seconds*refusedLines || paid != seconds*3 {
		t.Errorf("%d lines: %d refusals with a line, %d summed, %d paid", len(got), own, summed, paid)
	}
	if len(got) > seconds*(refusedLines+1+3) {
		t.Errorf("%d lines", len(got))
	}
	if counted != seconds*each/2 {
		t.Errorf("the metric counts %v", counted)
	}
}

// wantSummary holds a line that sums two statuses to what it must say.
func wantSummary(t *testing.T, l map[string]any) {
	t.Helper()
	statuses, _ := l["status"].(map[string]any)
	if l["@message"] != "more refused requests" || l["client_addr"] != "192.0.2.1" || l["@timestamp"] == nil || l["@module"] != "tollgate.access" || len(statuses) != 2 {
		t.Fatalf("line %v", l)
	}
}

func TestAFewRefusalsKeepTheirLines(t *testing.T) {
	got := watched(t, func(r *recorder) {
		for i := range 20 {
			for range refusedLines {
				r.record(refusedFrom(fmt.Sprintf("192.0.2.%d", i), 401))
			}
		}
	})
	if len(got) != 20*refusedLines {
		t.Errorf("%d lines", len(got))
	}
}

// A client with many addresses makes at most as many lines as the table has rows.
func TestManyAddressesAreOneAccount(t *testing.T) {
	got := watched(t, func(r *recorder) {
		for i := range 4 * refusedAddresses {
			r.record(refusedFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String(), 404))
		}
	})
	last := got[len(got)-1]
	if len(got) > refusedAddresses+refusedLines+1 || last["client_addr"] != "many" {
		t.Errorf("%d lines, the last is %v", len(got), last)
	}
	network := watched(t, func(r *recorder) {
		for i := range 100 {
			r.record(refusedFrom(fmt.Sprintf("2001:db8::%x", i), 404))
		}
	})
	if last := network[len(network)-1]; len(network) != refusedLines+1 || last["client_addr"] != "2001:db8::/64" || last["requests"] != 95.0 {
		t.Errorf("%d lines, the last is %v", len(network), last)
	}
}

func TestWhatWasServedOrRecordedIsNoRefusal(t *testing.T) {
	got := watched(t, func(r *recorder) {
		for range 50 {
			r.record(finished())
			admin := refusedFrom("192.0.2.1", 200)
			admin.KeyID = "admin"
			r.record(admin)
		}
	})
	if len(got) != 100 {
		t.Errorf("%d lines, want 100", len(got))
	}
}
