package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tollgate/bench/internal/lane"
	"tollgate/bench/internal/rig"
)

// TestMain lets the test binary be the harness's own programs.
func TestMain(m *testing.M) {
	if os.Getenv(rig.ChildEnv) == "1" {
		os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) //nolint:forbidigo // this is a main
	}
	m.Run()
}

func TestWrongUsageIsSaid(t *testing.T) {
	for _, args := range [][]string{{"--no-such-flag"}, {"upstream"}} {
		var stderr bytes.Buffer
		if got := run(args, strings.NewReader(""), io.Discard, &stderr); got != exitUsage || stderr.Len() == 0 {
			t.Errorf("%v: got %d and %q, want %d", args, got, &stderr, exitUsage)
		}
	}
	var stderr bytes.Buffer
	if got := run([]string{"--lanes", "nothing"}, strings.NewReader(""), io.Discard, &stderr); got != exitFailed || !strings.Contains(stderr.String(), "scale-64") {
		t.Errorf("unknown lane: got %d and %q", got, &stderr)
	}
}

// needEnvoy skips a test by name where there is no Envoy, or fails it with
// E2E=require.
func needEnvoy(t *testing.T) {
	t.Helper()
	root, err := rig.ModuleRoot()
	if err == nil {
		_, err = envoyBinary(root)
	}
	switch {
	case err == nil:
	case os.Getenv("E2E") == "require":
		t.Fatal(err)
	default:
		t.Skipf("no Envoy: %v", err)
	}
}

func readRuns(t *testing.T, file string) []lane.Run {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Runs []lane.Run `json:"runs"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Runs
}

func TestMiniatureRunThroughEnvoy(t *testing.T) {
	needEnvoy(t)
	file := filepath.Join(t.TempDir(), "bench.json")
	var stdout, stderr bytes.Buffer
	code := run([]string{
		"--lanes", "two", "--rounds", "1", "--duration", "300ms", "--only", "direct,plain,plain again,bare strip,tollgate",
		"--json", file, "--dir", t.TempDir(),
	}, strings.NewReader(""), &stdout, &stderr)
	// A miniature is too short for calm figures; what it counts must be right.
	if code != exitOK && code != exitVoid {
		t.Fatalf("exit status %d\n%s", code, &stderr)
	}
	runs := readRuns(t, file)
	// Which processes each target has, and whether it has a ledger.
	for _, want := range []struct {
		target        string
		envoy, server bool
		rows          int
	}{
		{"direct", false, false, 0},
		{"plain", true, false, 0},
		{"plain again", true, false, 0},
		{"bare strip", true, true, 0},
		{"tollgate", true, true, 18},
	} {
		i := slices.IndexFunc(runs, func(r lane.Run) bool { return r.Target == want.target })
		if i < 0 {
			t.Errorf("%s was not measured", want.target)
			continue
		}
		r := runs[i]
		if r.Void != "" || r.Requests != 18 || r.Chunks != 36 || r.TTFT50 <= 0 || r.Lag50 <= 0 {
			t.Errorf("%s: %+v", r.Target, r)
		}
		if r.Envoy > 0 != want.envoy || r.Server > 0 != want.server || r.Rows != want.rows {
			t.Errorf("%s: CPU of Envoy %v, of the server %v, %d rows of the ledger", r.Target, r.Envoy, r.Server, r.Rows)
		}
	}
	if !strings.Contains(stdout.String(), "| tollgate ") {
		t.Errorf("no table:\n%s", &stdout)
	}
}
