package gateway

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tollgate/internal/apikey"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

// rated is a set of quotas over a key file and a ledger with one row for each pair of
// key and tokens.
func rated(t *testing.T, keys string, used map[string]int64) *prometheus.Registry {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, []byte(keys), 0o600); err != nil {
		t.Fatal(err)
	}
	ring, err := apikey.Open(path, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	book := ledger.NewBook()
	for id, n := range used {
		if err := book.Begin(t.Context(), ledger.Intent{LeaseID: id, KeyID: id, StartedAt: time.Now()}); err != nil {
			t.Fatal(err)
		}
		_, _, err := book.Settle(t.Context(), ledger.Settlement{LeaseID: id, EndedAt: time.Now(), Reason: ledger.Complete, Quality: ledger.Exact, Counts: usage.Counts{Completion: n}})
		if err != nil {
			t.Fatal(err)
		}
	}
	reg := prometheus.NewRegistry()
	registerKeys(reg, &keyMetrics{keys: ring.Current, limits: limit.NewMemory(), ledger: book})
	return reg
}

func TestQuotasAndUsersOfKeys(t *testing.T) {
	reg := rated(t, `[{"key":"sk-a-0123456789abcdef","id":"a","user":"ann","quota":200,"quota_period":"day"},
		{"key":"sk-b-0123456789abcdef","id":"b","user":"bob","quota":100},{"key":"sk-c-0123456789abcdef","id":"c","user":"ann"}]`,
		map[string]int64{"a": 50, "c": 7})
	want := `
# HELP key_info 1 for each of the first 1000 keys, with its user, to sum what keys use by user.
# TYPE key_info gauge
key_info{api_key="a",user="ann"} 1
key_info{api_key="b",user="bob"} 1
key_info{api_key="c",user="ann"} 1
# HELP quota_used_ratio Part of a key's quota that is used in this period, with what running requests hold; of the first 1000 keys that have one.
# TYPE quota_used_ratio gauge
quota_used_ratio{key="a"} 0.25
quota_used_ratio{key="b"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

func TestSeriesOfKeysAreBounded(t *testing.T) {
	var keys strings.Builder
	for i := range 1200 {
		id := time.Unix(int64(i), 0).UTC().Format("150405")
		keys.WriteString(`,{"key":"sk-` + id + `-0123456789abcdef","id":"` + id + `","user":"u","quota":1}`)
	}
	reg := rated(t, "["+keys.String()[1:]+"]", nil)
	if n, err := testutil.GatherAndCount(reg, "quota_used_ratio"); n != keySeries || err != nil {
		t.Errorf("%d series of quotas, %v", n, err)
	}
	if n, err := testutil.GatherAndCount(reg, "key_info"); n != keySeries || err != nil {
		t.Errorf("%d series of keys, %v", n, err)
	}
}
