package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/central"
	"tollgate/internal/pgtest"
)

func TestSharedKeysByCommand(t *testing.T) { //nolint:gocyclo // one story, told step by step
	pg := pgtest.Start(t)
	postgres := pg.DatabaseFile()
	env, _, stdout, stderr := ledgerEnv(t)
	dir := filepath.Dir(env.ConfigFlag)
	file := filepath.Join(dir, "api_keys.json")
	if err := os.WriteFile(file, []byte(`[{"key": "sk-secret-of-root-0123456789abcdef", "id": "root", "user": "admin"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	config := "state_dir: " + dir + "\nauth: {api_keys_file: " + file + "}\ncentral: {postgres_file: " + postgres + ", keys: true}\nstore: {kind: redis, redis: {addresses: [\"127.0.0.1:1\"]}}\n"
	if err := os.WriteFile(env.ConfigFlag, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(cmd interface{ Run(*Env) error }) (string, error) {
		t.Helper()
		stdout.Reset()
		stderr.Reset()
		err := cmd.Run(env)
		return stdout.String() + stderr.String(), err
	}
	if _, err := run(&keysEnableCmd{ID: "root"}); err == nil || !strings.Contains(err.Error(), "start a gateway once") {
		t.Errorf("before the first gateway: got %v", err)
	}
	l, err := central.Open(postgres)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := central.NewKeys(l, file, filepath.Join(dir, "keys.json"), hclog.NewNullLogger()).Begin(context.Background()); err != nil {
		t.Fatal(err)
	}
	if out, err := run(&keysAddCmd{User: "ann", ID: "ann", QuotaPeriod: "total"}); err != nil || !strings.Contains(out, `added key ann of user "ann" to PostgreSQL`) {
		t.Errorf("add: %q, %v", out, err)
	}
	out, err := run(&keysListCmd{})
	if err != nil || !strings.Contains(out, "ann") || !strings.Contains(out, "root") {
		t.Errorf("list: %q, %v", out, err)
	}
	if out, err := run(&configCheckCmd{}); err != nil || !strings.Contains(out, "keys in PostgreSQL at 127.0.0.1:") || !strings.Contains(out, "2 keys, 2 enabled") {
		t.Errorf("config check: %q, %v", out, err)
	}
	if text, err := os.ReadFile(file); err != nil || strings.Contains(string(text), "ann") {
		t.Errorf("the key file was edited: %v", err)
	}
	pg.Kill()
	if out, err := run(&keysListCmd{}); err != nil || !strings.Contains(out, "root") || !strings.Contains(out, "does not answer") {
		t.Errorf("list from the copy: %q, %v", out, err)
	}
	if _, err := run(&keysDisableCmd{ID: "root"}); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("an edit: got %v", err)
	}
	if out, err := run(&configCheckCmd{}); err != nil {
		t.Errorf("config check: %q, %v", out, err)
	}
	if err := os.WriteFile(file, []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run(&configCheckCmd{}); err == nil || !strings.Contains(out+err.Error(), "the key file is not read any more") {
		t.Errorf("config check of a changed file: %q, %v", out, err)
	}
}
