package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// alerts are the names in the rules.
func alerts(t *testing.T) []string {
	t.Helper()
	var doc struct {
		Groups []struct{ Rules []struct{ Alert string } }
	}
	if err := yaml.Unmarshal([]byte(read(t, "prometheus/rules.yaml")), &doc); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, g := range doc.Groups {
		for _, r := range g.Rules {
			all = append(all, r.Alert)
		}
	}
	if len(all) < 15 {
		t.Fatalf("only %d alerts: %v", len(all), all)
	}
	return all
}

// Prometheus itself reads the rules and fires them.
func TestEachAlertFires(t *testing.T) {
	promtool := promtool(t)
	for _, args := range [][]string{{"check", "rules", "rules.yaml"}, {"test", "rules", "rules.test.yaml"}, {"check", "config", "prometheus.yml"}, {"check", "config", "kubernetes.yml"}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = "prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// What fires nothing in a test may never fire: each alert is expected at least once.
func TestEachAlertIsExpectedByATest(t *testing.T) {
	var doc struct {
		Tests []struct {
			Rules []struct {
				Name   string           `yaml:"alertname"`
				Alerts []map[string]any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "prometheus/rules.test.yaml")), &doc); err != nil {
		t.Fatal(err)
	}
	var fired []string
	for _, test := range doc.Tests {
		for _, r := range test.Rules {
			if len(r.Alerts) > 0 {
				fired = append(fired, r.Name)
			}
		}
	}
	for _, name := range alerts(t) {
		if !slices.Contains(fired, name) {
			t.Errorf("%s is fired by no test", name)
		}
	}
}

// Who is woken by an alert finds its name, with what to do, in the operator's page.
func TestEachAlertHasARunbook(t *testing.T) {
	page := read(t, "../docs/operations.md")
	var headings []string
	for _, m := range regexp.MustCompile(`(?m)^### (Tollgate\w+)\n\n(\S.*)`).FindAllStringSubmatch(page, -1) {
		headings = append(headings, m[1])
	}
	names := alerts(t)
	for _, name := range names {
		if !slices.Contains(headings, name) {
			t.Errorf("docs/operations.md has no paragraph for %s", name)
		}
	}
	for _, name := range headings {
		if !slices.Contains(names, name) {
			t.Errorf("docs/operations.md explains %s, which is no alert", name)
		}
	}
}

// promtool is the one that scripts/fetch_promtool.py gives. A run that must have it
// (E2E=require) fails without.
func promtool(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("PROMTOOL_BIN"); path != "" {
		return path
	}
	if built, err := filepath.Glob("../.cache/promtool/*/promtool"); err == nil && len(built) > 0 {
		path, err := filepath.Abs(built[len(built)-1])
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	if path, err := exec.LookPath("promtool"); err == nil {
		return path
	}
	if os.Getenv("E2E") == "require" {
		t.Fatal("no promtool: set PROMTOOL_BIN to what scripts/fetch_promtool.py prints")
	}
	t.Skip("no promtool: make test builds it")
	return ""
}
