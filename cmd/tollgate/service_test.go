package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollgate/internal/unixsock"
)

// TestAnEditHoldsWhenItsCommandReturns: the running service is told after the file
// is written and before the command ends.
func TestAnEditHoldsWhenItsCommandReturns(t *testing.T) {
	c := newCLI(t)
	var seen []string // the key file as the service finds it
	answer := http.StatusOK
	lis, err := unixsock.Listen(filepath.Join(c.dir, "state", "run", "admin.sock"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		file, err := os.ReadFile(c.keys)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/admin/reload-keys" {
			t.Errorf("the service got %s %s, file: %v", r.Method, r.URL, err)
		}
		seen = append(seen, string(file))
		w.WriteHeader(answer)
		_, _ = w.Write([]byte(`{"error": {"message": "the last good keys stay"}}`))
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(lis) }()
	t.Cleanup(func() { _ = server.Close(); <-done })

	for _, args := range [][]string{
		{"keys", "add", "--user", "ann", "--id", "ann"},
		{"keys", "disable", "ann"},
		{"keys", "rotate", "ann"},
		{"keys", "remove", "ann"},
	} {
		before := len(seen)
		_, errs := c.run(0, args...)
		if len(seen) != before+1 || strings.Contains(errs, "service") {
			t.Errorf("%v: the service was told %d times, said %q", args, len(seen)-before, errs)
		}
	}
	for i, want := range []bool{true, true, true, false} {
		if got := strings.Contains(seen[i], `"ann"`); got != want {
			t.Errorf("edit %d: the service finds the key: %v, want %v", i, got, want)
		}
	}

	// A service that keeps its old keys is no failed edit, but it is said.
	answer = http.StatusUnprocessableEntity
	_, errs := c.run(0, "keys", "add", "--user", "bob")
	contains(t, "stderr", errs, "has not taken it", "the last good keys stay")
}
