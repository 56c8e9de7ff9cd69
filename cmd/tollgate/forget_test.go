package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollgate/internal/apikey"
	"tollgate/internal/audit"
)

// TestForgetCountsAndThenDoesIt: without --yes nothing changes, beside a service it is
// refused, and afterwards neither keys nor ledger know the user, while sums stay.
func TestForgetCountsAndThenDoesIt(t *testing.T) { //nolint:gocyclo // one story, told step by step
	env, path, stdout, stderr := ledgerEnv(t)
	keys := filepath.Join(filepath.Dir(path), "keys.json")
	conf, err := os.ReadFile(env.ConfigFlag)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(env.ConfigFlag, fmt.Appendf(conf, "auth: {api_keys_file: %q}\n", keys), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := apikey.Ensure(keys); err != nil {
		t.Fatal(err)
	}
	if err := apikey.Edit(keys, audit.Editor{}, func(f *apikey.File) error {
		_, err := f.Add(apikey.Info{ID: "key-ann", User: "ann", Enabled: true}.Fields())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	s := recordUse(t, path)
	run := func(yes bool) error {
		stdout.Reset()
		stderr.Reset()
		return (&forgetCmd{User: "ann", Yes: yes}).Run(env)
	}
	if err := run(true); err == nil || !strings.Contains(err.Error(), "stop it") {
		t.Errorf("beside a service: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := run(false); err != nil || !strings.Contains(stdout.String(), "1 keys, 2 requests and 2 sums of ann") || !strings.Contains(stderr.String(), "--yes") {
		t.Errorf("%v: %s%s", err, stdout, stderr)
	}
	if text, _ := os.ReadFile(keys); !bytes.Contains(text, []byte("key-ann")) {
		t.Error("the key is gone without --yes")
	}
	if err := run(true); err != nil || !strings.Contains(stderr.String(), "ann is forgotten-") {
		t.Fatalf("%v: %s%s", err, stdout, stderr)
	}
	for _, file := range []string{keys, path} {
		text, err := os.ReadFile(file)
		if err != nil || bytes.Contains(text, []byte("key-ann")) {
			t.Errorf("%s still has the key: %v", file, err)
		}
	}
	stdout.Reset()
	if err := (&usageCmd{By: "user", Format: "csv"}).Run(env); err != nil || strings.Contains(stdout.String(), "ann") || !strings.Contains(stdout.String(), "2,2000,10,2010") {
		t.Errorf("usage: %v\n%s", err, stdout)
	}
	for _, check := range []interface{ Run(*Env) error }{&ledgerVerifyCmd{}, &auditVerifyCmd{}} {
		if err := check.Run(env); err != nil {
			t.Errorf("%T: %v", check, err)
		}
	}
	stdout.Reset()
	if err := (&auditListCmd{Limit: 10}).Run(env); err != nil || !strings.Contains(stdout.String(), "user.forget") {
		t.Errorf("audit: %v\n%s", err, stdout)
	}
}
