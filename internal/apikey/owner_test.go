package apikey_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"tollgate/internal/apikey"
	"tollgate/internal/audit"
)

// TestAnEditByRootLeavesTheFileToItsOwner: the service runs as an account of its own,
// and root adds keys.
func TestAnEditByRootLeavesTheFileToItsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can give files away; the test of the packages does it in a container, too")
		return
	}
	const uid, gid = 4711, 4712
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.Chown(filepath.Dir(path), uid, gid); err != nil {
		t.Fatal(err)
	}
	if _, _, err := apikey.Ensure(path); err != nil {
		t.Fatal(err)
	}
	err := apikey.Edit(path, audit.Editor{}, func(f *apikey.File) error {
		_, err := f.Add(apikey.Fields{"user": jsontext.Value(`"alice"`)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !ok || owner.Uid != uid || owner.Gid != gid || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, owner %d:%d", f.Name(), info.Mode(), owner.Uid, owner.Gid)
		}
	}
}
