package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/central"
	"tollgate/internal/ledger"
	"tollgate/internal/pgtest"
	"tollgate/internal/sqlitestore"
)

func TestTheCentralLedgerByCommand(t *testing.T) { //nolint:gocyclo // one story, told step by step
	pg := pgtest.Start(t)
	file := pg.DatabaseFile()
	env, path, stdout, stderr := ledgerEnv(t)
	conf, err := os.ReadFile(env.ConfigFlag)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(env.ConfigFlag, append(conf, "central: {postgres_file: "+file+"}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	s := recordUse(t, path)
	run := func(cmd interface{ Run(*Env) error }) (out, errs string, err error) {
		t.Helper()
		stdout.Reset()
		stderr.Reset()
		err = cmd.Run(env)
		return stdout.String(), stderr.String(), err
	}
	must := func(cmd interface{ Run(*Env) error }) (out, errs string) {
		t.Helper()
		out, errs, err := run(cmd)
		if err != nil {
			t.Fatal(err)
		}
		return out, errs
	}

	out, _ := must(&usageCmd{By: "user", Format: "table"})
	if !strings.HasPrefix(out, "no requests in the ledger at 127.0.0.1:") {
		t.Errorf("an empty central ledger: %q", out)
	}
	_, errs := must(&centralBackfillCmd{})
	if !strings.Contains(errs, "has the 3 settled rows of "+path) {
		t.Errorf("backfill: %q", errs)
	}
	must(&centralBackfillCmd{Since: "2026-11-24"})
	out, _ = must(&usageCmd{By: "user", Format: "csv"})
	want := "user,requests,prompt_tokens,completion_tokens,total_tokens,cached_tokens,errors\nann,2,2000,10,2010,300,1\nbob,1,1000,5,1005,200,0\n"
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
	if out, _ = must(&usageCmd{By: "user", Format: "csv", Local: true}); !strings.Contains(out, "live,1,0,0,0") {
		t.Errorf("the part of this gateway: %q", out)
	}

	l, err := central.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Put(context.Background(), nil, central.Position{Ledger: "abcdef0123", Name: "gate-1", Change: 3, Rows: 7, Age: time.Hour}); err != nil {
		t.Fatal(err)
	}
	out, errs = must(&centralStatusCmd{outputFlag: outputFlag{Output: "table"}})
	if !strings.Contains(strings.Join(strings.Fields(out), " "), "gate-1 abcdef01") || !strings.Contains(strings.Join(strings.Fields(out), " "), "7 1h") || !strings.Contains(errs, "behind the gateways that run") {
		t.Errorf("status: %q, %q", out, errs)
	}
	out, _ = must(&centralStatusCmd{outputFlag: outputFlag{Output: "json"}})
	var status struct {
		Gateways []struct {
			Gateway       string  `json:"gateway"`
			Rows          int64   `json:"behind_rows"`
			BehindSeconds float64 `json:"behind_seconds"`
		} `json:"gateways"`
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil || len(status.Gateways) != 1 || status.Gateways[0].Rows != 7 || status.Gateways[0].BehindSeconds < 3600 {
		t.Errorf("status as JSON: %v, %s", err, out)
	}

	if err := s.SetMark(context.Background(), sqlitestore.MarkShipped, 3); err != nil {
		t.Fatal(err)
	}
	if out, _ = must(&centralVerifyCmd{}); !strings.Contains(out, "it has the 3 rows") {
		t.Errorf("verify: %q", out)
	}
	pg.ExecFile(file, "UPDATE tollgate.requests SET completion_tokens = 99 WHERE lease_id = 'lease-1'; DELETE FROM tollgate.requests WHERE lease_id = 'lease-2'")
	out, _, err = run(&centralVerifyCmd{})
	if err == nil || !strings.Contains(err.Error(), "invariants broken: 4") || strings.Count(out, string(ledger.RuleRollup)) != 2 ||
		strings.Count(out, string(ledger.RuleShipped)) != 2 {
		t.Errorf("a central ledger that is wrong: %v\n%s", err, out)
	}

	pg.Kill()
	_, _, err = run(&usageCmd{By: "user", Format: "csv"})
	if err == nil || !strings.Contains(err.Error(), "--local") || strings.Contains(err.Error(), "password") {
		t.Errorf("PostgreSQL away: %v", err)
	}
}

func TestCentralCommandsNeedACentralLedger(t *testing.T) {
	env, _, _, _ := ledgerEnv(t)
	for _, cmd := range []interface{ Run(*Env) error }{&centralStatusCmd{outputFlag: outputFlag{Output: "table"}}, &centralVerifyCmd{}, &centralBackfillCmd{}} {
		if err := cmd.Run(env); status(err) != exitMisconfigured || !strings.Contains(err.Error(), "central.postgres_file") {
			t.Errorf("%T: got %v, want wrong usage", cmd, err)
		}
	}
	bad := filepath.Join(t.TempDir(), "postgres")
	if err := os.WriteFile(bad, []byte("postgres://u:hunter2@[::1:x/"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(env.ConfigFlag, []byte("central: {postgres_file: "+bad+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := (&centralStatusCmd{outputFlag: outputFlag{Output: "table"}}).Run(env)
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "holds no connection string") {
		t.Errorf("no connection string: got %v", err)
	}
}
