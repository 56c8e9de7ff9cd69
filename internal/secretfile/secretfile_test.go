package secretfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollgate/internal/secretfile"
)

func TestRead(t *testing.T) {
	for name, c := range map[string]struct {
		text, want string
		bad        bool
	}{
		"a line":          {text: "s3cret\n", want: "s3cret"},
		"no line end":     {text: "s3cret", want: "s3cret"},
		"of Windows":      {text: "s3cret\r\n", want: "s3cret"},
		"spaces around":   {text: " \t s3 cret  \n\n", want: "s3 cret"},
		"empty":           {text: "\n"},
		"two lines":       {text: "s3cret\nmore\n", bad: true},
		"a control":       {text: "s3\x00cret", bad: true},
		"longer than any": {text: strings.Repeat("s3cret", 20_000), bad: true},
	} {
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := secretfile.Read(path)
		if got != c.want || errors.Is(err, secretfile.ErrForm) != c.bad {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "cret\n") {
			t.Errorf("%s: the error holds the text: %v", name, err)
		}
	}
	if got, err := secretfile.Read(""); got != "" || err != nil {
		t.Errorf("no file: got %q, %v", got, err)
	}
	if _, err := secretfile.Read(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
