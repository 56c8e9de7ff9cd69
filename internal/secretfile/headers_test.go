package secretfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/secretfile"
)

func TestAFileOfHeadersIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "headers")
	for text, want := range map[string]map[string]string{
		"": {},
		"# of the collector\n\nAuthorization: Bearer a:b\r\n x-team:ml \n": {"authorization": "Bearer a:b", "x-team": "ml"},
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := secretfile.Headers(path)
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
	if got, err := secretfile.Headers(""); got != nil || err != nil {
		t.Errorf("without a file: got %v, %v", got, err)
	}
}

func TestALineThatIsNoHeaderIsNamedAndNotShown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "headers")
	for _, bad := range []string{"hush", "hush:", ": hush", "hush hush: x", "x: hush\x00"} {
		if err := os.WriteFile(path, []byte("a: b\n"+bad+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var line *secretfile.LineError
		_, err := secretfile.Headers(path)
		if !errors.As(err, &line) || line.Line != 2 || strings.Contains(err.Error(), "hush") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("a: b\n", 20000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := secretfile.Headers(path); !errors.Is(err, secretfile.ErrForm) {
		t.Errorf("a huge file: got %v", err)
	}
}
