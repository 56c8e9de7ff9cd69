package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"tollgate/internal/ledger"
	"tollgate/internal/usage"
)

// correct settles a request of recordUse again, better known.
func correct(t *testing.T, s interface {
	Settle(ctx context.Context, s ledger.Settlement) (ledger.Record, usage.Counts, error)
}, lease string, completion int64,
) {
	t.Helper()
	counts := usage.None()
	counts.Prompt, counts.Completion = 1000, completion
	if _, _, err := s.Settle(context.Background(), ledger.Settlement{LeaseID: lease, Reason: ledger.Complete, Quality: ledger.Exact, Counts: counts}); err != nil {
		t.Fatal(err)
	}
}

func TestExportGoesOnWhereItEnded(t *testing.T) {
	env, path, stdout, _ := ledgerEnv(t)
	s := recordUse(t, path)
	cursor := filepath.Join(t.TempDir(), "cursor")
	export := func(want ...string) {
		t.Helper()
		stdout.Reset()
		if err := (&ledgerExportCmd{Format: "jsonl", CursorFile: cursor}).Run(env); err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(stdout.String()) {
			var row struct {
				LeaseID string `json:"lease_id"`
			}
			if err := json.Unmarshal([]byte(line), &row); err != nil {
				t.Fatal(err)
			}
			got = append(got, row.LeaseID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	export("lease-0", "lease-1", "lease-2")
	export()
	correct(t, s, "lease-1", 500)
	export("lease-1")
	export()
	if err := os.WriteFile(cursor, []byte("yesterday"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&ledgerExportCmd{Format: "jsonl", CursorFile: cursor}).Run(env); status(err) != exitMisconfigured {
		t.Errorf("a file that holds no cursor: got %v", err)
	}
}

// TestASinkTakesEachRequestOnce sends to a sink that fails now and then after it
// has taken a batch, as a receiver with one row for each id.
func TestASinkTakesEachRequestOnce(t *testing.T) { //nolint:gocyclo // one story, told in order
	env, path, _, _ := ledgerEnv(t)
	s := recordUse(t, path)
	var mu sync.Mutex
	taken, calls := map[string]float64{}, 0
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		var events []struct {
			SpecVersion, ID, Source, Type, Subject string
			Data                                   map[string]any
		}
		if err := json.Unmarshal(body, &events); err != nil || r.Header.Get("Content-Type") != "application/cloudevents-batch+json" ||
			r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("not a batch of events: %v, %v", err, r.Header)
		}
		for _, e := range events {
			if e.SpecVersion != "1.0" || e.Source != "tollgate" || e.Type == "" || e.Subject == "" {
				t.Errorf("event %+v", e)
			}
			if _, known := taken[e.ID]; !known {
				taken[e.ID] = e.Data["total_tokens"].(float64)
			}
		}
		if calls++; calls == 1 {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	t.Cleanup(sink.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := ledgerExportCmd{Format: "cloudevents", CursorFile: filepath.Join(t.TempDir(), "c"), To: sink.URL, TokenFile: token, Subject: "user"}
	for range 2 {
		if err := cmd.Run(env); err != nil {
			t.Fatal(err)
		}
	}
	if len(taken) != 3 || taken["lease-1"] != 1005 || calls != 2 {
		t.Errorf("taken %v in %d calls, want three requests in two", taken, calls)
	}
	sink.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	correct(t, s, "lease-1", 500)
	if err := cmd.Run(env); err == nil || !strings.Contains(err.Error(), "401") || strings.Contains(err.Error(), "secret") {
		t.Errorf("a sink that refuses: got %v", err)
	}
	sink.Config.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(body), "lease-1") {
			t.Errorf("what was refused does not come again: %s", body)
		}
	})
	if err := cmd.Run(env); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []ledgerExportCmd{{Format: "csv", To: sink.URL}, {Format: "cloudevents", To: "openmeter"}, {Format: "cloudevents", To: sink.URL, TokenFile: "/nowhere"}} {
		if err := bad.Run(env); status(err) != exitMisconfigured {
			t.Errorf("%+v: got %v, want wrong usage", bad, err)
		}
	}
}

func TestFOCUSHasALineForEachMeter(t *testing.T) {
	env, path, stdout, _ := ledgerEnv(t)
	recordUse(t, path)
	if err := (&ledgerExportCmd{Format: "focus"}).Run(env); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(strings.NewReader(stdout.String())).ReadAll()
	if err != nil || len(lines) != 7 { // two for each of three settled requests
		t.Fatalf("got %d lines, %v, want 7", len(lines), err)
	}
	column := func(name string) int { return slices.Index(lines[0], name) }
	var tokens []string
	for _, l := range lines[1:] {
		tokens = append(tokens, l[column("x_LeaseId")]+" "+l[column("SkuMeter")]+" "+l[column("ConsumedQuantity")])
		if l[column("ChargePeriodStart")] > l[column("ChargePeriodEnd")] || l[column("BillingPeriodStart")] != "2026-11-01T00:00:00Z" {
			t.Errorf("periods of %v", l)
		}
	}
	want := []string{
		"lease-0 Prompt tokens 1000", "lease-0 Completion tokens 0", "lease-1 Prompt tokens 1000", "lease-1 Completion tokens 5",
		"lease-2 Prompt tokens 1000", "lease-2 Completion tokens 10",
	}
	if !slices.Equal(tokens, want) {
		t.Errorf("got %q, want %q", tokens, want)
	}
}
