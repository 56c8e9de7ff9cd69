package unixsock_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollgate/internal/unixsock"
)

func TestAFolderOfSocketsIsItsOwnersAlone(t *testing.T) {
	made := filepath.Join(t.TempDir(), "state", "run")
	for range 2 {
		if err := unixsock.Folder(made); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(made); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	for _, mode := range []os.FileMode{0o777, 0o755, 0o770, 0o701, 0o710} {
		if err := os.Chmod(made, mode); err != nil {
			t.Fatal(err)
		}
		if err := unixsock.Folder(made); !errors.Is(err, unixsock.ErrOpenFolder) || !strings.Contains(err.Error(), "chmod 700 "+made) {
			t.Errorf("mode %v: %v", mode, err)
		}
		if info, err := os.Stat(made); err != nil || info.Mode().Perm() != mode {
			t.Errorf("mode %v was changed to %v, %v", mode, info.Mode(), err)
		}
	}
}
