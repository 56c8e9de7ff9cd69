package apikey_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"tollgate/internal/apikey"
	"tollgate/internal/audit"
)

// list is a key file of n keys, sk-0 … with the ids k0 ….
func list(n int) string {
	entries := make([]string, n)
	for i := range entries {
		entries[i] = fmt.Sprintf(`{"key": "sk-%d", "id": "k%d"}`, i, i)
	}
	return "[" + strings.Join(entries, ",\n") + "]"
}

func open(t *testing.T, text string) (*apikey.Keyring, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.json")
	write(t, path, text)
	k, err := apikey.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k, path
}

func TestReloadCountsWhatChanged(t *testing.T) {
	k, path := open(t, list(3))
	for _, c := range []struct {
		text string
		want apikey.Summary
	}{
		{list(3), apikey.Summary{Keys: 3, Enabled: 3}},
		{list(5), apikey.Summary{Keys: 5, Enabled: 5, Changed: 2}},
		{strings.Replace(list(5), `"k0"`, `"k0", "enabled": false`, 1), apikey.Summary{Keys: 5, Enabled: 4, Changed: 1}},
		{strings.Replace(list(5), `sk-1`, `sk-other`, 1), apikey.Summary{Keys: 5, Enabled: 5, Changed: 2}},
		{list(5), apikey.Summary{Keys: 5, Enabled: 5, Changed: 1}},
		{list(4), apikey.Summary{Keys: 4, Enabled: 4, Changed: 1}},
		{"[]", apikey.Summary{Changed: 4}},
	} {
		write(t, path, c.text)
		got, err := k.Reload(false)
		if err != nil || got != c.want {
			t.Errorf("%s: got %+v, %v, want %+v", c.text, got, err, c.want)
		}
	}
}

func TestBrokenFilesKeepTheLastGoodKeys(t *testing.T) {
	good := string(read(t, "testdata/keys.json"))
	k, path := open(t, good)
	var outcomes []bool
	k.OnReload(func(ok bool) { outcomes = append(outcomes, ok) })
	want := k.Current()
	for i := 0; i < len(strings.TrimSpace(good)); i += 7 {
		write(t, path, good[:i])
		if _, err := k.Reload(false); err == nil {
			t.Fatalf("cut at %d: reloaded", i)
		}
		if k.Current() != want || k.LastReloadOK() {
			t.Fatalf("cut at %d: the keys changed, or ok is %v", i, k.LastReloadOK())
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Reload(true); !errors.Is(err, os.ErrNotExist) || k.Current() != want {
		t.Errorf("vanished: got %v", err)
	}
	write(t, path, good)
	if s, err := k.Reload(false); err != nil || s.Changed != 0 || !k.LastReloadOK() {
		t.Errorf("repaired: got %+v, %v, ok %v", s, err, k.LastReloadOK())
	}
	if n := len(outcomes); n < 3 || outcomes[0] || !outcomes[n-1] {
		t.Errorf("outcomes told: %v", outcomes)
	}
}

func TestFlippedBitsKeepAGoodRing(t *testing.T) {
	good := read(t, "testdata/keys.json")
	k, path := open(t, string(good))
	r := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		flipped := bytes.Clone(good)
		flipped[r.IntN(len(flipped))] ^= 1 << r.IntN(8)
		write(t, path, string(flipped))
		before := k.Current()
		if _, err := k.Reload(false); err != nil && k.Current() != before {
			t.Fatal("a broken file changed the keys")
		}
		if k.Current().Len() != 4 {
			t.Fatalf("got %d keys, want 4: half a file was applied", k.Current().Len())
		}
	}
}

func TestShrunkFileNeedsForceOrAnEditOfOurs(t *testing.T) {
	k, path := open(t, list(12))
	write(t, path, list(6)) // half, not more
	if _, err := k.Reload(false); err != nil {
		t.Fatalf("half of the keys: %v", err)
	}
	write(t, path, list(12))
	if _, err := k.Reload(false); err != nil {
		t.Fatal(err)
	}
	write(t, path, list(5))
	if _, err := k.Reload(false); !errors.Is(err, apikey.ErrShrunk) || k.Current().Len() != 12 {
		t.Errorf("more than half: got %v and %d keys, want ErrShrunk and 12", err, k.Current().Len())
	}
	if s, err := k.Reload(true); err != nil || s.Keys != 5 {
		t.Errorf("forced: got %+v, %v", s, err)
	}
	write(t, path, "[]")
	if s, err := k.Reload(false); err != nil || s.Keys != 0 {
		t.Errorf("fewer than ten keys: got %+v, %v", s, err)
	}
}

func TestOurOwnEditMayRemoveAllKeys(t *testing.T) {
	k, path := open(t, list(12))
	// By another process.
	removeTo := func(n int) func(f *apikey.File) error {
		return func(f *apikey.File) error {
			for _, key := range f.Keys()[n:] {
				if err := f.Remove(key.ID); err != nil {
					return err
				}
			}
			return nil
		}
	}
	if err := apikey.Edit(path, audit.Editor{}, removeTo(1)); err != nil {
		t.Fatal(err)
	}
	if s, err := k.Reload(false); err != nil || s.Keys != 1 {
		t.Errorf("after an edit: got %+v, %v", s, err)
	}
	// By this one.
	write(t, path, list(20))
	if _, err := k.Reload(false); err != nil {
		t.Fatal(err)
	}
	if err := k.Edit(audit.Editor{}, removeTo(2)); err != nil || k.Current().Len() != 2 {
		t.Errorf("Keyring.Edit: got %v and %d keys, want 2", err, k.Current().Len())
	}
	// A mark vouches for the content that it names and no other.
	write(t, path, list(20))
	if _, err := k.Reload(false); err != nil {
		t.Fatal(err)
	}
	write(t, path, list(3))
	if _, err := k.Reload(false); !errors.Is(err, apikey.ErrShrunk) {
		t.Errorf("after a stale mark: got %v, want ErrShrunk", err)
	}
}

func TestHooksRunOutsideOfLocks(t *testing.T) {
	k, path := open(t, list(2))
	var calls []string
	k.OnChange(func(old, next *apikey.Ring, _ audit.Editor) {
		calls = append(calls, fmt.Sprintf("%d>%d", old.Len(), next.Len()))
		if len(calls) == 1 {
			if _, err := k.Reload(false); err != nil { // would deadlock under a lock
				t.Error(err)
			}
			k.OnReload(func(bool) {})
		}
	})
	write(t, path, list(3))
	if _, err := k.Reload(false); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"2>3"}, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestAThousandReloadsUnderLookupsFailNone(t *testing.T) {
	k, path := open(t, list(4))
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if key, ok := k.Current().Lookup("sk-1", time.Now()); !ok || key.ID != "k1" {
					t.Error("a lookup failed during a reload")
					return
				}
			}
		})
	}
	for i := range 1000 {
		if err := os.WriteFile(path, []byte(list(4+i%3)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Reload(false); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
}

// watched runs the keyring and tells the number of keys after each change.
func watched(t *testing.T, text string) (k *apikey.Keyring, path string, changes chan int) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "config", "keys.json")
	if err := os.Mkdir(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	write(t, path, text)
	k, err := apikey.Open(path, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	changes = make(chan int, 100)
	k.OnChange(func(_, next *apikey.Ring, _ audit.Editor) { changes <- next.Len() })
	ready := make(chan struct{}, 100)
	k.OnReload(func(bool) { ready <- struct{}{} })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	<-ready // the first reading: the watch is on
	return k, path, changes
}

func expect(t *testing.T, changes chan int, want int, what string) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case got := <-changes:
			if got == want {
				return
			}
		case <-timeout:
			t.Fatalf("%s: no reload to %d keys", what, want)
		}
	}
}

func TestWatchSurvivesWhatHappensToFiles(t *testing.T) {
	k, path, changes := watched(t, list(1))
	write(t, path, list(2))
	expect(t, changes, 2, "written in place")

	next := path + ".new"
	write(t, next, list(3))
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
	expect(t, changes, 3, "replaced by rename")

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, list(4))
	expect(t, changes, 4, "vanished and back")

	if err := apikey.Edit(path, audit.Editor{}, func(f *apikey.File) error { _, err := f.Add(fields(`{"user":"x"}`)); return err }); err != nil {
		t.Fatal(err)
	}
	expect(t, changes, 5, "edited by a command")

	dir := filepath.Dir(path)
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	write(t, path, list(6))
	expect(t, changes, 6, "folder replaced")
	write(t, path, list(7))
	expect(t, changes, 7, "written in the new folder")

	if k.Current().Len() != 7 || !k.LastReloadOK() {
		t.Errorf("got %d keys, ok %v", k.Current().Len(), k.LastReloadOK())
	}
}
