package apikey_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/internal/apikey"
	"tollgate/internal/audit"
)

// Who changed the file is told with the change: the editor of an edit, also where
// another process made it, and "file" where somebody wrote it by hand.
func TestAChangeTellsItsEditor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	if _, _, err := apikey.Ensure(path); err != nil {
		t.Fatal(err)
	}
	k, err := apikey.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	var by []audit.Editor
	k.OnChange(func(_, _ *apikey.Ring, e audit.Editor) { by = append(by, e) })
	add := func(id string) func(*apikey.File) error {
		return func(f *apikey.File) error {
			_, err := f.Add(apikey.Info{ID: id, User: "u", Enabled: true}.Fields())
			return err
		}
	}
	here, there := audit.Editor{Who: "boss", From: "10.0.0.1"}, audit.Editor{Who: "local:ann\n{", From: "local"}
	if err := k.Edit(here, add("one")); err != nil {
		t.Fatal(err)
	}
	if err := apikey.Edit(path, there, add("two")); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Reload(false); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(data, []byte(`"two"`), []byte(`"three"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Reload(false); err != nil {
		t.Fatal(err)
	}
	if want := []audit.Editor{here, there, {Who: audit.ByFile}}; !slices.Equal(by, want) {
		t.Errorf("editors %q, want %q", by, want)
	}
}

// The states for the audit tell a rotation and no secret.
func TestStatesTellNoSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	if _, _, err := apikey.Ensure(path); err != nil {
		t.Fatal(err)
	}
	k, err := apikey.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	before := string(k.Current().States()["default"])
	var secret string
	if err := k.Edit(audit.Editor{}, func(f *apikey.File) (err error) { secret, err = f.Rotate("default", time.Hour); return err }); err != nil {
		t.Fatal(err)
	}
	after := string(k.Current().States()["default"])
	if before == after || !strings.Contains(after, `"previous"`) {
		t.Errorf("a rotation is not seen: %s, then %s", before, after)
	}
	digest := apikey.Digest(secret)
	for _, hidden := range []string{secret, apikey.DefaultSecret, hex.EncodeToString(digest[:])} {
		if strings.Contains(before+after, hidden) {
			t.Errorf("the states tell a secret: %s %s", before, after)
		}
	}
}
