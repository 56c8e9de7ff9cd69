package central_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/apikey"
	"tollgate/internal/audit"
	"tollgate/internal/central"
	"tollgate/internal/pgtest"
)

// replica is a gateway as far as its keys go.
type replica struct {
	keys *central.Keys
	ring *apikey.Keyring
	copy string
	file string
	stop func()
}

const someKeys = `[
  {"key": "sk-default-key-change-me", "id": "default", "user": "default"},
  {"key": "sk-plain-secret-of-ann-0123456789", "id": "ann", "user": "ann"},
  {"key_sha256": "7a3f5e0d1c2b4a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1", "id": "root", "user": "admin"}
]`

// replicaOf starts a gateway with a key file of its own.
func replicaOf(t *testing.T, postgres, keyFile string) *replica {
	t.Helper()
	dir := t.TempDir()
	r := &replica{copy: filepath.Join(dir, "keys.json"), file: filepath.Join(dir, "api_keys.json")}
	if keyFile != "" {
		if err := os.WriteFile(r.file, []byte(keyFile), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.start(t, postgres)
	return r
}

// start begins with what the folder of the gateway holds.
func (r *replica) start(t *testing.T, postgres string) {
	t.Helper()
	r.keys = central.NewKeys(dial(t, postgres), r.file, r.copy, hclog.NewNullLogger())
	if _, err := r.keys.Begin(context.Background()); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.ring, err = apikey.OpenShared(r.copy, r.keys, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.keys.Run(ctx, func() { _ = r.ring.Load() })
	}()
	r.stop = func() { cancel(); <-done }
	t.Cleanup(r.stop)
}

func (r *replica) opens(secret string) bool {
	_, ok := r.ring.Current().Lookup(secret, time.Now())
	return ok
}

func TestSharedKeys(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *pgtest.Server, string)
	}{
		{"the file is imported without secrets and without the default key", importsFile},
		{"thirty gateways import once", importsOnce},
		{"a change anywhere holds everywhere", sharesChanges},
		{"parallel edits lose nothing", editsAtOnce},
		{"a key file that was changed later is an error", refusesFile},
		{"without a key file one admin key is made", makesAdmin},
	} {
		t.Run(c.name, func(t *testing.T) {
			pg := pgtest.Shared(t)
			c.run(t, pg, pg.DatabaseFile())
		})
	}
}

func importsFile(t *testing.T, pg *pgtest.Server, postgres string) {
	t.Helper()
	r := replicaOf(t, postgres, someKeys)
	if !r.opens("sk-plain-secret-of-ann-0123456789") || r.opens(apikey.DefaultSecret) || r.ring.Current().Len() != 2 {
		t.Errorf("the imported keys: %d, ann opens: %v", r.ring.Current().Len(), r.opens("sk-plain-secret-of-ann-0123456789"))
	}
	var document string
	pg.ScanFile(postgres, "SELECT document FROM tollgate.keys", &document)
	copied, err := os.ReadFile(r.copy)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"PostgreSQL": document, "the copy": string(copied)} {
		if strings.Contains(text, "sk-") {
			t.Errorf("%s holds a secret", name)
		}
	}
	if info, err := os.Stat(r.copy); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy: %v, %v, want mode 600", info.Mode(), err)
	}
	if again, err := os.ReadFile(r.file); err != nil || string(again) != someKeys {
		t.Errorf("the key file was changed: %v", err)
	}
}

func importsOnce(t *testing.T, pg *pgtest.Server, postgres string) {
	t.Helper()
	var wg sync.WaitGroup
	secrets := make(chan string, 30)
	for range 30 {
		keys := central.NewKeys(dial(t, postgres), filepath.Join(t.TempDir(), "no"), filepath.Join(t.TempDir(), "keys.json"), hclog.NewNullLogger())
		wg.Go(func() {
			secret, err := keys.Begin(context.Background())
			if err != nil {
				t.Errorf("begin: %v", err)
			}
			if secret != "" {
				secrets <- secret
			}
		})
	}
	wg.Wait()
	var version int64
	pg.ScanFile(postgres, "SELECT version FROM tollgate.keys", &version)
	if len(secrets) != 1 || version != 1 {
		t.Errorf("%d gateways have imported, version %d, want 1 and 1", len(secrets), version)
	}
}

func sharesChanges(t *testing.T, _ *pgtest.Server, postgres string) {
	t.Helper()
	a, b := replicaOf(t, postgres, someKeys), replicaOf(t, postgres, "")
	by := audit.Editor{Who: "root", From: "192.0.2.1"}
	var told audit.Editor
	var mu sync.Mutex
	b.ring.OnChange(func(_, _ *apikey.Ring, by audit.Editor) {
		mu.Lock()
		defer mu.Unlock()
		told = by
	})
	var created apikey.Created
	if err := a.ring.Edit(by, func(f *apikey.File) (err error) {
		created, err = f.Add(apikey.Info{ID: "new", User: "bob", Enabled: true}.Fields())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if !a.opens(created.Secret) {
		t.Error("a new key does not open where it was made")
	}
	began := time.Now()
	eventually(t, 10*time.Second, "the new key on the other gateway", func() bool { return b.opens(created.Secret) })
	t.Logf("a new key was good on the other gateway after %v", time.Since(began))
	mu.Lock()
	if told != by {
		t.Errorf("the other gateway was told of %+v, want %+v", told, by)
	}
	mu.Unlock()
	if err := b.ring.Edit(by, func(f *apikey.File) error { return f.Disable("new") }); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the end of the key", func() bool { return !a.opens(created.Secret) })
	// An edit that is refused changes nothing and says why.
	if err := b.ring.Edit(by, func(f *apikey.File) error { return f.Remove("nobody") }); !errors.Is(err, apikey.ErrNoKey) {
		t.Errorf("got %v, want ErrNoKey", err)
	}
	if err := b.ring.Edit(by, func(f *apikey.File) error { return f.Remove("root") }); !errors.Is(err, apikey.ErrLastAdmin) {
		t.Errorf("got %v, want ErrLastAdmin", err)
	}
}

func editsAtOnce(t *testing.T, _ *pgtest.Server, postgres string) {
	t.Helper()
	replicas := []*replica{replicaOf(t, postgres, someKeys), replicaOf(t, postgres, ""), replicaOf(t, postgres, "")}
	var wg sync.WaitGroup
	for i, r := range replicas {
		wg.Go(func() {
			for j := range 10 {
				id := string(rune('a'+i)) + string(rune('0'+j))
				if err := r.ring.Edit(audit.Editor{Who: "root"}, func(f *apikey.File) error {
					_, err := f.Add(apikey.Info{ID: id, User: "u", Enabled: true}.Fields())
					return err
				}); err != nil {
					t.Errorf("edit: %v", err)
				}
			}
		})
	}
	wg.Wait()
	for _, r := range replicas {
		eventually(t, 10*time.Second, "all keys", func() bool { return r.ring.Current().Len() == 32 })
	}
}

func refusesFile(t *testing.T, _ *pgtest.Server, postgres string) {
	t.Helper()
	r := replicaOf(t, postgres, someKeys)
	if _, err := r.ring.Reload(false); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.file, []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ring.Reload(false); !errors.Is(err, central.ErrKeyFile) || !strings.Contains(err.Error(), r.file) {
		t.Errorf("got %v, want ErrKeyFile", err)
	}
	if !r.opens("sk-plain-secret-of-ann-0123456789") {
		t.Error("the keys have changed")
	}
	if err := os.Remove(r.file); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ring.Reload(false); err != nil {
		t.Errorf("after the file was removed: %v", err)
	}
}

func makesAdmin(t *testing.T, _ *pgtest.Server, postgres string) {
	t.Helper()
	dir := t.TempDir()
	keys := central.NewKeys(dial(t, postgres), filepath.Join(dir, "no"), filepath.Join(dir, "keys.json"), hclog.NewNullLogger())
	secret, err := keys.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ring, err := apikey.OpenShared(filepath.Join(dir, "keys.json"), keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := ring.Current().Lookup(secret, time.Now()); !ok || !k.Admin() {
		t.Errorf("the secret opens %+v", k)
	}
	if _, err := os.Stat(filepath.Join(dir, "no")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing key file was written: %v", err)
	}
}

// TestKeysWithoutPostgres: the last copy is good also at a start, changes say
// that they cannot be made, and a gateway with neither waits and says so.
func TestKeysWithoutPostgres(t *testing.T) {
	pg := pgtest.Start(t)
	postgres := pg.DatabaseFile()
	r := replicaOf(t, postgres, someKeys)
	pg.Kill()
	edit := func() error {
		return r.ring.Edit(audit.Editor{Who: "root"}, func(f *apikey.File) error { return f.Disable("ann") })
	}
	if err := edit(); !errors.Is(err, apikey.ErrAway) {
		t.Errorf("an edit: got %v, want ErrAway", err)
	}
	if !r.opens("sk-plain-secret-of-ann-0123456789") {
		t.Error("an old key is refused")
	}
	r.stop()
	r.start(t, postgres)
	if !r.opens("sk-plain-secret-of-ann-0123456789") {
		t.Error("an old key is refused after a start")
	}
	if age := r.keys.Age(); age <= 0 || age > time.Hour {
		t.Errorf("age of the copy: %v", age)
	}

	var said bytes.Buffer
	fresh := central.NewKeys(dial(t, postgres), filepath.Join(t.TempDir(), "no"), filepath.Join(t.TempDir(), "keys.json"), hclog.New(&hclog.LoggerOptions{Output: &said}))
	began := make(chan error, 1)
	go func() {
		_, err := fresh.Begin(context.Background())
		began <- err
	}()
	select {
	case err := <-began:
		t.Fatalf("a gateway without keys has begun: %v", err)
	case <-time.After(time.Second):
	}
	pg.Start()
	if err := <-began; err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), "waiting for the keys") {
		t.Errorf("no word of progress: %s", said.String())
	}
	eventually(t, 20*time.Second, "an edit after the return", func() bool { return edit() == nil })
	eventually(t, 10*time.Second, "a current copy", func() bool { return r.keys.Age() < 2*time.Second && !r.opens("sk-plain-secret-of-ann-0123456789") })
}
