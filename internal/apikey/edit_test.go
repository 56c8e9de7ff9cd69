package apikey_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/apikey"
	"tollgate/internal/audit"
	"tollgate/internal/limit"
)

// sampleFile is a copy of the sample key file.
func sampleFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api_keys.json")
	write(t, path, string(read(t, "testdata/keys.json")))
	return path
}

func edit(t *testing.T, path string, fn func(*apikey.File) error) *apikey.Ring {
	t.Helper()
	if err := apikey.Edit(path, audit.Editor{}, fn); err != nil {
		t.Fatal(err)
	}
	ring, err := apikey.Parse(path, read(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func TestAddedKeyIsStoredAsDigestOnly(t *testing.T) {
	path := sampleFile(t)
	var created apikey.Created
	quota, n := int64(1000), int64(3)
	unlimited, end := limit.Unlimited, day("2030-01-01")
	ring := edit(t, path, func(f *apikey.File) (err error) {
		created, err = f.Add(apikey.Info{
			User: "carol", Enabled: true, Quota: &quota, QuotaPeriod: apikey.Day, Models: []string{"qwen"},
			Limits:    apikey.LimitsInfo{Concurrent: (*apikey.Cap)(&n), TokensPerMinute: (*apikey.Cap)(&unlimited)},
			ExpiresAt: &end, Note: "a \"quoted\" note",
		}.Fields())
		return err
	})
	if !regexp.MustCompile(`^sk-[0-9A-Za-z]{32}$`).MatchString(created.Secret) {
		t.Errorf("the secret has %d bytes of another form", len(created.Secret))
	}
	if strings.Contains(string(read(t, path)), created.Secret) {
		t.Error("the secret is in the file")
	}
	got, ok := ring.Lookup(created.Secret, day("2029-01-01"))
	want := &apikey.Key{
		ID: created.ID, User: "carol", Quota: 1000, QuotaPeriod: apikey.Day, Enabled: true, Models: []string{"qwen"},
		Concurrent: &n, TokensPerMinute: &unlimited, ExpiresAt: day("2030-01-01"), Note: "a \"quoted\" note",
	}
	if diff := cmp.Diff(want, got); !ok || diff != "" {
		t.Errorf("key, found %v (-want +got):\n%s", ok, diff)
	}
	if ring.Len() != 5 {
		t.Errorf("got %d keys, want 5", ring.Len())
	}
}

func TestEditKeepsWhatItDoesNotTouch(t *testing.T) {
	path := sampleFile(t)
	edit(t, path, func(f *apikey.File) error { return f.Disable("alice-1") })
	const golden = "testdata/edited.golden"
	got := string(read(t, path))
	if *update {
		write(t, golden, got)
	}
	if diff := cmp.Diff(string(read(t, golden)), got); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %v, %v, want 0600", info.Mode(), err)
	}
}

func TestNothingChangedIsNothingWritten(t *testing.T) {
	path := sampleFile(t)
	before := read(t, path)
	fail := errors.New("changed my mind")
	for name, fn := range map[string]func(*apikey.File) error{
		"nothing":           func(*apikey.File) error { return nil },
		"enabled already":   func(f *apikey.File) error { return f.Enable("alice-1") },
		"drained already":   func(f *apikey.File) error { return f.Drain("off") },
		"patch of the same": func(f *apikey.File) error { return f.Update("alice-1", fields(`{"enabled":true}`)) },
		"failed": func(f *apikey.File) error {
			if err := f.Remove("off"); err != nil {
				return err
			}
			return fail
		},
	} {
		if err := apikey.Edit(path, audit.Editor{}, fn); err != nil && !errors.Is(err, fail) {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(before, read(t, path)); diff != "" {
			t.Errorf("%s changed the file:\n%s", name, diff)
		}
	}
}

func TestStatesOfAKey(t *testing.T) {
	path := sampleFile(t)
	state := func(fn func(*apikey.File) error) (enabled, drain bool) {
		t.Helper()
		k, ok := edit(t, path, fn).ByID("alice-1")
		if !ok {
			t.Fatal("the key is gone")
		}
		return k.Enabled, k.Drain
	}
	if e, d := state(func(f *apikey.File) error { return f.Drain("alice-1") }); e || !d {
		t.Errorf("drained: got enabled %v, drain %v", e, d)
	}
	if e, d := state(func(f *apikey.File) error { return f.Disable("alice-1") }); e || d {
		t.Errorf("disabled: got enabled %v, drain %v", e, d)
	}
	if e, d := state(func(f *apikey.File) error { return f.Enable("alice-1") }); !e || d {
		t.Errorf("enabled: got enabled %v, drain %v", e, d)
	}
	ring := edit(t, path, func(f *apikey.File) error { return f.Remove("alice-1") })
	if _, ok := ring.ByID("alice-1"); ok || ring.Len() != 3 {
		t.Errorf("removed: got %d keys", ring.Len())
	}
	for name, fn := range map[string]func(*apikey.File) error{
		"enable":  func(f *apikey.File) error { return f.Enable("nope") },
		"disable": func(f *apikey.File) error { return f.Disable("nope") },
		"drain":   func(f *apikey.File) error { return f.Drain("nope") },
		"remove":  func(f *apikey.File) error { return f.Remove("nope") },
		"update":  func(f *apikey.File) error { return f.Update("nope", nil) },
		"rotate":  func(f *apikey.File) error { _, err := f.Rotate("nope", 0); return err },
	} {
		if err := apikey.Edit(path, audit.Editor{}, fn); !errors.Is(err, apikey.ErrNoKey) {
			t.Errorf("%s of an unknown key: got %v, want ErrNoKey", name, err)
		}
	}
}

func TestRotationKeepsTheIDAndTheOldSecretForTheGrace(t *testing.T) {
	path := sampleFile(t)
	before, err := apikey.Parse(path, read(t, path))
	if err != nil {
		t.Fatal(err)
	}
	id := before.Keys()[2].ID // derived from a plain key
	var secret string
	start := time.Now()
	ring := edit(t, path, func(f *apikey.File) (err error) {
		secret, err = f.Rotate(id, time.Hour)
		return err
	})
	if strings.Contains(string(read(t, path)), "sk-admin") {
		t.Error("the old secret is still in the file in plain")
	}
	for name, c := range map[string]struct {
		secret string
		after  time.Duration
		want   bool
	}{
		"new at once":            {secret, 0, true},
		"new later":              {secret, 48 * time.Hour, true},
		"old at once":            {"sk-admin", 0, true},
		"old to the last second": {"sk-admin", time.Hour, true},
		"old after the grace":    {"sk-admin", time.Hour + 2*time.Second, false},
	} {
		k, ok := ring.Lookup(c.secret, start.Add(c.after))
		if ok != c.want || ok && (k.ID != id || !k.Admin()) {
			t.Errorf("%s: got %v, %v", name, k, ok)
		}
	}
	ring = edit(t, path, func(f *apikey.File) error { _, err := f.Rotate(id, 0); return err })
	if _, ok := ring.Lookup(secret, time.Now()); ok {
		t.Error("a rotation without grace keeps the old secret")
	}
	if _, ok := ring.Lookup("sk-admin", time.Now()); !ok {
		t.Error("a second rotation cut the first one's grace short")
	}
}

func TestUpdateChangesWhatThePatchNames(t *testing.T) {
	path := sampleFile(t)
	n, kept := int64(7), int64(4)
	ring := edit(t, path, func(f *apikey.File) error {
		return f.Update("alice-1", fields(`{"user":"dave","quota":null,"quota_period":"day","models":null,"limits":{"requests_per_minute":7},
			"expires_at":null,"note":null,"enabled":false}`))
	})
	got, _ := ring.ByID("alice-1")
	want := &apikey.Key{ID: "alice-1", User: "dave", Quota: limit.Unlimited, QuotaPeriod: apikey.Day, Concurrent: &kept, RequestsPerMinute: &n, NotBefore: day("2026-01-01")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("key (-want +got):\n%s", diff)
	}
	before := read(t, path)
	if err := apikey.Edit(path, audit.Editor{}, func(f *apikey.File) error { return f.Update("alice-1", fields(`{"quota":-5}`)) }); !errors.Is(err, apikey.ErrInvalid) {
		t.Errorf("a negative quota: got %v, want ErrInvalid", err)
	}
	if err := apikey.Edit(path, audit.Editor{}, func(f *apikey.File) error {
		_, err := f.Add(fields(`{"id":"alice-1"}`))
		return err
	}); !errors.Is(err, apikey.ErrExists) {
		t.Errorf("an id twice: got %v, want ErrExists", err)
	}
	if diff := cmp.Diff(before, read(t, path)); diff != "" {
		t.Errorf("a refused edit changed the file:\n%s", diff)
	}
}

func TestParallelEditsLoseNothing(t *testing.T) {
	path := sampleFile(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if err := apikey.Edit(path, audit.Editor{}, func(f *apikey.File) error { _, err := f.Add(fields(`{"user":"x"}`)); return err }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	ring, err := apikey.Parse(path, read(t, path))
	if err != nil || ring.Len() != 4+40 {
		t.Fatalf("got %v, %v, want 44 keys", ring, err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 3 {
		t.Errorf("left in the folder: %v, %v, want the file, its lock and its mark", left, err)
	}
}

func TestEditFollowsALink(t *testing.T) {
	path := sampleFile(t)
	link := filepath.Join(t.TempDir(), "link.json")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := apikey.Edit(link, audit.Editor{}, func(f *apikey.File) error { return f.Remove("off") }); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(link)
	if err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
	if strings.Contains(string(read(t, path)), `"off"`) {
		t.Error("the file behind the link was not edited")
	}
}

func TestBrokenFileIsNotEdited(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	write(t, path, `[{"key": "sk-x"}, {]`)
	var fe *apikey.FileError
	if err := apikey.Edit(path, audit.Editor{}, func(f *apikey.File) error { _, err := f.Add(nil); return err }); !errors.As(err, &fe) {
		t.Errorf("got %v, want a *FileError", err)
	}
	if got := string(read(t, path)); got != `[{"key": "sk-x"}, {]` {
		t.Errorf("the file was changed to %q", got)
	}
	if err := apikey.Edit(path+"-none", audit.Editor{}, func(*apikey.File) error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: got %v", err)
	}
}

func TestMissingFileIsWrittenWithDefaultAndAdmin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config", "api_keys.json")
	first, created, err := apikey.Ensure(path)
	if err != nil || !created {
		t.Fatalf("got %v, %v", created, err)
	}
	data := read(t, path)
	ring, err := apikey.Parse(path, data)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), first.AdminSecret) {
		t.Error("the admin key is in the file in plain")
	}
	if k, ok := ring.Lookup(first.AdminSecret, time.Now()); !ok || !k.Admin() {
		t.Errorf("the admin key: got %v, %v", k, ok)
	}
	if k, ok := ring.Lookup("sk-default-key-change-me", time.Now()); !ok || !k.Default || k.User != "default" || !ring.HasDefault() {
		t.Errorf("the default key: got %v, %v", k, ok)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %v, %v", info.Mode(), err)
	}
}

func TestExistingFileIsNeverWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api_keys.json")
	write(t, path, "broken")
	if got, created, err := apikey.Ensure(path); err != nil || created || got.AdminSecret != "" {
		t.Errorf("got %v, %v", created, err)
	}
	if got := string(read(t, path)); got != "broken" {
		t.Errorf("the file is now %q", got)
	}
}

func TestEveryFieldThatIsShownIsOneOfTheFile(t *testing.T) {
	cap1, now, quota := apikey.Cap(1), day("2030-01-01"), int64(5)
	all := apikey.Info{
		ID: "all", User: "u", Enabled: true, Quota: &quota, QuotaPeriod: apikey.Day, Models: []string{"m"},
		Limits:    apikey.LimitsInfo{Concurrent: &cap1, RequestsPerMinute: &cap1, TokensPerMinute: &cap1},
		NotBefore: &now, ExpiresAt: &now, Note: "n",
	}
	later := day("2031-01-01")
	all.ExpiresAt = &later
	ring := edit(t, sampleFile(t), func(f *apikey.File) error {
		_, err := f.Add(all.Fields())
		return err
	})
	k, ok := ring.ByID("all")
	if !ok {
		t.Fatal("the key is not there")
	}
	if diff := cmp.Diff(all, k.Info()); diff != "" {
		t.Errorf("what was added and what is shown (-added +shown):\n%s", diff)
	}
}

func TestAnEditTakesNoSecretAndNoFieldThatIsNotKnown(t *testing.T) {
	path := sampleFile(t)
	before := read(t, path)
	for _, text := range []string{
		`{"key":"sk-another-secret"}`, `{"key_sha256":"` + hexDigest("x") + `"}`, `{"previous":[]}`, `{"colour":"red"}`, `{"id":"other"}`,
		`{"drain":1}`, `{"enabled":"yes"}`, `{"limits":{"tokens":1}}`, `{"limits":[]}`, `{"models":"m"}`,
	} {
		err := apikey.Edit(path, audit.Editor{}, func(f *apikey.File) error { return f.Update("alice-1", fields(text)) })
		var invalid *apikey.InvalidError
		if !errors.As(err, &invalid) || !errors.Is(err, apikey.ErrInvalid) || strings.Contains(err.Error(), "sk-another") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if diff := cmp.Diff(before, read(t, path)); diff != "" {
		t.Errorf("a refused edit changed the file:\n%s", diff)
	}
}

func TestNullTakesABoundAwayAndNothingElse(t *testing.T) {
	path := sampleFile(t)
	ring := edit(t, path, func(f *apikey.File) error {
		if err := f.Disable("alice-1"); err != nil {
			return err
		}
		return f.Update("alice-1", fields(`{"user":null,"enabled":null,"drain":null,"quota_period":null,"quota":null,"models":null,"limits":null}`))
	})
	k, _ := ring.ByID("alice-1")
	if k.User != "alice" || k.Enabled || k.QuotaPeriod != apikey.Month || k.Quota != limit.Unlimited || k.Models != nil || k.Concurrent != nil {
		t.Errorf("got %+v", k)
	}
}

func TestOnlyADisabledKeyDrains(t *testing.T) {
	path := sampleFile(t)
	for _, step := range []struct {
		text           string
		enabled, drain bool
	}{
		{`{"drain":true}`, true, false},
		{`{"enabled":false,"drain":true}`, false, true},
		{`{"enabled":false}`, false, true}, // it was disabled before
		{`{"enabled":true}`, true, false},
		{`{"enabled":false}`, false, false},
	} {
		ring := edit(t, path, func(f *apikey.File) error { return f.Update("alice-1", fields(step.text)) })
		if k, _ := ring.ByID("alice-1"); k.Enabled != step.enabled || k.Drain != step.drain {
			t.Errorf("%s: enabled %v, drain %v", step.text, k.Enabled, k.Drain)
		}
	}
}
