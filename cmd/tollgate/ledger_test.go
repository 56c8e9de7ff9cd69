package main

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVerifyPrintsTheOffendingRows(t *testing.T) {
	env, path, stdout, _ := ledgerEnv(t)
	verify := &ledgerVerifyCmd{}
	if err := verify.Run(env); err == nil || !strings.Contains(err.Error(), "no ledger at "+path) {
		t.Errorf("missing ledger: got %v", err)
	}
	recordUse(t, path)
	if err := verify.Run(env); err != nil {
		t.Fatal(err)
	}
	if got, want := stdout.String(), "ledger at "+path+": every invariant holds\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}

	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(context.Background(), "UPDATE requests SET quality = NULL WHERE lease_id = 'lease-1'"); err != nil {
		t.Fatal(err)
	}
	stdout.Reset()
	if err := verify.Run(env); err == nil || !strings.Contains(err.Error(), "invariants broken: 1") {
		t.Errorf("damaged ledger: got %v, want an error", err)
	}
	if !strings.Contains(stdout.String(), "\nlease-1  settled_is_whole  ") {
		t.Errorf("got %q, want the row of lease-1", stdout.String())
	}
}

func TestExportStreamsRows(t *testing.T) {
	env, path, stdout, stderr := ledgerEnv(t)
	if err := (&ledgerExportCmd{Format: "csv"}).Run(env); err != nil {
		t.Fatal(err)
	}
	const header = "lease_id,request_id,key_id,user,model,endpoint,engine,stream,n,prompts,status,started_at,first_byte_at,ended_at," +
		"end_reason,quality,prompt_tokens,completion_tokens,cached_tokens,reasoning_tokens,reserved_tokens,client_addr," +
		"requested_model,meter,change,gateway,end_user,secret,trace\n"
	if stdout.String() != header || !strings.Contains(stderr.String(), "no ledger at") {
		t.Errorf("missing ledger: got %q, %q", stdout.String(), stderr.String())
	}
	recordUse(t, path)
	for _, c := range []struct {
		cmd  ledgerExportCmd
		want string
	}{
		{ledgerExportCmd{Format: "csv", Since: "2026-11-24"}, header +
			`lease-2,req-2,key-ann,ann,"m, ""big""",/v1/chat/completions,127.0.0.1:8000,true,1,1,200,2026-11-24T12:02:00Z,` +
			"2026-11-24T12:02:01Z,2026-11-24T12:02:01.5Z,timeout,exact,1000,10,200,,99,192.0.2.7,alias,,3,gate-1,eve,0a1b2c3d,\n" +
			`lease-3,req-3,key-live,live,"m, ""big""",/v1/chat/completions,127.0.0.1:8000,true,1,1,0,2026-11-24T12:03:00Z,,,,,,,,,99,192.0.2.7,alias,,,gate-1,eve,0a1b2c3d,` + "\n"},
		{ledgerExportCmd{Format: "jsonl", Until: "2026-11-23T12:01:00Z"}, `{"lease_id":"lease-0","request_id":"req-0","key_id":"key-ann",` +
			`"user":"ann","model":"m, \"big\"","endpoint":"/v1/chat/completions","engine":"127.0.0.1:8000","stream":true,"n":1,"prompts":1,` +
			`"status":200,"started_at":"2026-11-23T12:00:00Z","first_byte_at":"2026-11-23T12:00:01Z","ended_at":"2026-11-23T12:00:01.5Z",` +
			`"end_reason":"complete","quality":"exact","prompt_tokens":1000,"completion_tokens":0,"cached_tokens":100,` +
			`"reasoning_tokens":null,"reserved_tokens":99,"client_addr":"192.0.2.7","requested_model":"alias","meter":"","change":1,` +
			`"gateway":"gate-1","end_user":"eve","secret":"0a1b2c3d","trace":""}` + "\n"},
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

func TestExportSelectsRows(t *testing.T) {
	env, path, stdout, _ := ledgerEnv(t)
	recordUse(t, path)
	for _, c := range []struct {
		cmd  ledgerExportCmd
		want int
	}{
		{ledgerExportCmd{Key: "key-ann"}, 2},
		{ledgerExportCmd{Key: "key-ann", Since: "2026-11-24"}, 1},
		{ledgerExportCmd{EndUser: "eve"}, 4},
		{ledgerExportCmd{EndUser: "bob"}, 0},
		{ledgerExportCmd{RequestedModel: "alias", Key: "key-bob"}, 1},
		{ledgerExportCmd{RequestedModel: `m, "big"`}, 0},
	} {
		c.cmd.Format = "jsonl"
		stdout.Reset()
		if err := c.cmd.Run(env); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(stdout.String(), "\n"); got != c.want {
			t.Errorf("%+v: got %d rows, want %d", c.cmd, got, c.want)
		}
	}
}

func TestBackupSaysWhatItDid(t *testing.T) {
	env, path, _, stderr := ledgerEnv(t)
	to := filepath.Join(t.TempDir(), "copy.db")
	if err := (&ledgerBackupCmd{File: to}).Run(env); err == nil || !strings.Contains(err.Error(), "no ledger at "+path) {
		t.Errorf("missing ledger: got %v", err)
	}
	recordUse(t, path)
	if err := (&ledgerBackupCmd{File: to}).Run(env); err != nil {
		t.Fatal(err)
	}
	if got, want := stderr.String(), "wrote "+to+"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	err := (&ledgerBackupCmd{File: to}).Run(env)
	if status(err) != exitMisconfigured || !strings.Contains(err.Error(), "name a file that does not") {
		t.Errorf("a second time: got %v, want wrong usage", err)
	}
}
