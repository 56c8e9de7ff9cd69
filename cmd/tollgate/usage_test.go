package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
	"tollgate/internal/usage"
)

// ledgerEnv is an environment whose config names a ledger in a folder of the
// test, and what the commands print.
func ledgerEnv(t *testing.T) (env *Env, path string, stdout, stderr *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, "ledger.db")
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "ledger:\n  path: %q\n", path), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	return &Env{
		Ctx: t.Context(), Getenv: func(string) string { return "" }, Stdin: strings.NewReader(""),
		Stdout: stdout, Stderr: stderr, ConfigFlag: file,
	}, path, stdout, stderr
}

// recordUse writes three settled requests on two days and a live one.
func recordUse(t *testing.T, path string) *sqlitestore.Store {
	t.Helper()
	s, err := sqlitestore.Open(t.Context(), sqlitestore.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for i, user := range []string{"ann", "bob", "ann", "live"} {
		in := ledger.Intent{
			LeaseID: fmt.Sprint("lease-", i), RequestID: fmt.Sprint("req-", i), KeyID: "key-" + user, User: user, Model: "m, \"big\"",
			Endpoint: "/v1/chat/completions", Engine: "127.0.0.1:8000", Stream: true, N: 1, Prompts: 1,
			StartedAt: time.Date(2026, 11, 23+i/2, 12, i, 0, 0, time.UTC), Reserved: 99, ClientAddr: "192.0.2.7",
			RequestedModel: "alias", Gateway: "gate-1", EndUser: "eve", Secret: "0a1b2c3d",
		}
		if err := s.Begin(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		if user == "live" {
			continue
		}
		counts := usage.None()
		counts.Prompt, counts.Completion, counts.Cached = 1000, int64(5*i), int64(100*min(i+1, 2))
		reason := map[bool]ledger.EndReason{false: ledger.Complete, true: ledger.Timeout}[i == 2]
		if _, _, err := s.Settle(t.Context(), ledger.Settlement{
			LeaseID: in.LeaseID, Status: 200, FirstByteAt: in.StartedAt.Add(time.Second), EndedAt: in.StartedAt.Add(1500 * time.Millisecond),
			Reason: reason, Quality: ledger.Exact, Counts: counts,
		}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestUsageIsPrintedInEveryFormat(t *testing.T) {
	env, path, stdout, _ := ledgerEnv(t)
	recordUse(t, path) // stays open: the service runs
	for _, c := range []struct {
		cmd  usageCmd
		want string
	}{
		{usageCmd{By: "user", Format: "table"}, "" +
			"USER   REQUESTS  PROMPT  COMPLETION  TOTAL  CACHED  ERRORS\n" +
			"ann           2    2000          10   2010     300       1\n" +
			"bob           1    1000           5   1005     200       0\n" +
			"live          1       0           0      0       0       0\n" +
			"total         4    3000          15   3015     500       1\n"},
		{usageCmd{By: "model", Format: "csv"}, "" +
			"model,requests,prompt_tokens,completion_tokens,total_tokens,cached_tokens,errors\n" +
			"\"m, \"\"big\"\"\",4,3000,15,3015,500,1\n"},
		{usageCmd{By: "day", Format: "json", Since: "2026-11-24"}, `[
  {
    "day": "2026-11-24",
    "requests": 2,
    "prompt_tokens": 1000,
    "completion_tokens": 10,
    "total_tokens": 1010,
    "cached_tokens": 200,
    "errors": 1
  }
]
`},
		{usageCmd{By: "requested_model", Format: "csv"}, "" +
			"requested_model,requests,prompt_tokens,completion_tokens,total_tokens,cached_tokens,errors\nalias,4,3000,15,3015,500,1\n"},
		{usageCmd{By: "end_user", Format: "csv", Since: "2026-11-24"}, "" +
			"end_user,requests,prompt_tokens,completion_tokens,total_tokens,cached_tokens,errors\neve,2,1000,10,1010,200,1\n"},
		{usageCmd{By: "key", Format: "csv", Until: "2026-11-23T12:01:00Z"}, "" +
			"key,requests,prompt_tokens,completion_tokens,total_tokens,cached_tokens,errors\nkey-ann,1,1000,0,1000,100,0\n"},
	} {
		stdout.Reset()
		if err := c.cmd.Run(env); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, stdout.String()); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", c.cmd, diff)
		}
	}
}

func TestUsageSaysThatThereIsNone(t *testing.T) {
	env, path, stdout, stderr := ledgerEnv(t)
	missing := "no ledger at " + path + ": nothing has been recorded yet\n"
	empty := "no requests in the ledger at " + path + " in that period\n"
	run := func(c usageCmd, wantOut, wantErr string) {
		t.Helper()
		stdout.Reset()
		stderr.Reset()
		if err := c.Run(env); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(wantOut+"|"+wantErr, stdout.String()+"|"+stderr.String()); diff != "" {
			t.Errorf("%+v, stdout|stderr (-want +got):\n%s", c, diff)
		}
	}
	run(usageCmd{By: "key", Format: "table"}, missing, "")
	run(usageCmd{By: "key", Format: "json"}, "[]\n", missing)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("asking made a ledger: %v", err)
	}
	recordUse(t, path)
	run(usageCmd{By: "key", Format: "table", Until: "2026-11-01"}, empty, "")
	run(usageCmd{By: "key", Format: "csv", Until: "2026-11-01"}, "key,requests,prompt_tokens,completion_tokens,total_tokens,cached_tokens,errors\n", empty)
}

func TestUnreadablePeriodIsNamed(t *testing.T) {
	env, _, _, _ := ledgerEnv(t)
	for flag, err := range map[string]error{
		"--since": (&usageCmd{By: "key", Format: "table", Since: "tomorrow"}).Run(env),
		"--until": (&ledgerExportCmd{Format: "csv", Until: "never"}).Run(env),
		"before":  (&usageCmd{By: "key", Format: "table", Since: "2026-11-02", Until: "2026-11-01"}).Run(env),
	} {
		if !errors.Is(err, ledger.ErrQuery) || !strings.Contains(err.Error(), flag) {
			t.Errorf("got %v, want ErrQuery that names %s", err, flag)
		}
		if got := status(err); got != exitMisconfigured {
			t.Errorf("%s: got exit status %d, want %d", flag, got, exitMisconfigured)
		}
	}
}
