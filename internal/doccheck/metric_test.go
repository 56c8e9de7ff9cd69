package doccheck_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// metrics are the metrics of the service by full name, with their labels, as
// the code makes them.
func metrics(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for path, text := range files(t, ".go") {
		if strings.HasSuffix(path, "_test.go") || !strings.Contains(text, "client_golang/prometheus\"") || strings.HasPrefix(path, "bench/") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			if name := optsName(call.Args[0]); name != "" {
				out[name] = labels(call)
			}
			return true
		})
	}
	if len(out) < 20 {
		t.Fatalf("only %d metrics found", len(out))
	}
	return out
}

// optsName is the full name in prometheus.XOpts{Name: "…"}, "" for anything
// else. The base names have no prefix.
func optsName(e ast.Expr) string {
	lit, ok := e.(*ast.CompositeLit)
	if !ok {
		return ""
	}
	if typ, ok := lit.Type.(*ast.SelectorExpr); !ok || !strings.HasSuffix(typ.Sel.Name, "Opts") {
		return ""
	}
	for _, elt := range lit.Elts {
		kv, ok := elt.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		key, isIdent := kv.Key.(*ast.Ident)
		value, isLit := kv.Value.(*ast.BasicLit)
		if isIdent && isLit && key.Name == "Name" {
			name, err := strconv.Unquote(value.Value)
			if err != nil {
				return ""
			}
			if strings.HasPrefix(name, "http_") || strings.HasPrefix(name, "gen_ai_") || name == "token_usage_total" {
				return name
			}
			return "tollgate_" + name
		}
	}
	return ""
}

// labels are the names in []string{…}, the second argument of a vector.
func labels(call *ast.CallExpr) []string {
	names := []string{}
	if len(call.Args) < 2 {
		return names
	}
	if lit, ok := call.Args[1].(*ast.CompositeLit); ok {
		for _, elt := range lit.Elts {
			if b, ok := elt.(*ast.BasicLit); ok {
				names = append(names, strings.Trim(b.Value, `"`))
			}
		}
	}
	return names
}

var metricName = regexp.MustCompile(`\b(tollgate_[a-z_]+|http_[a-z]+_(?:total|seconds|requests|duration_seconds)(?:_bucket|_sum|_count)?|token_usage_total|gen_ai_(?:client|server)_[a-z_]+)\b`)

// vllmName matches metrics of an engine itself.
var vllmName = regexp.MustCompile(`\bvllm:[a-z_]+`)

// base is the name of a family.
func base(name string) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return name
}

func TestMetricsNamedInPagesExist(t *testing.T) {
	known := metrics(t)
	for path, text := range pages(t) {
		if path == "envoy/README.md" {
			continue // it names clusters of Envoy
		}
		for _, name := range metricName.FindAllString(text, -1) {
			if _, ok := known[base(name)]; !ok {
				t.Errorf("%s names the metric %s, which no code has", path, name)
			}
		}
	}
}

func TestEveryMetricIsExplainedWithItsLabels(t *testing.T) {
	want := metrics(t)
	for _, row := range rows(page(t, "docs/operations.md")) {
		name, labelled, _ := strings.Cut(strings.Trim(row[0], "`"), "{")
		if len(row) != 3 || !slices.Contains([]string{"counter", "gauge", "histogram"}, row[1]) {
			continue
		}
		has, ok := want[name]
		if !ok {
			t.Errorf("docs/operations.md explains %s, which no code has or which stands there twice", name)
			continue
		}
		if got := strings.TrimSuffix(labelled, "}"); got != strings.Join(has, ",") {
			t.Errorf("docs/operations.md says that %s has the labels %q, it has %v", name, got, has)
		}
		delete(want, name)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		t.Errorf("docs/operations.md does not explain %s", name)
	}
}

// query holds one expression to what exists. Grouping and matching may name
// labels of the metrics in it, and those that a scrape adds.
func query(t *testing.T, where, expr string, known map[string][]string) {
	t.Helper()
	allowed := []string{"instance", "job", "le"}
	found := metricName.FindAllString(expr, -1)
	for _, name := range found {
		has, ok := known[base(name)]
		if !ok {
			t.Errorf("%s asks for %s, which no code has", where, name)
		}
		allowed = append(allowed, has...)
	}
	engines := vllmName.FindAllString(expr, -1)
	recorded := page(t, "internal/vllmsim/testdata/base/metrics.txt")
	for _, name := range engines {
		if !strings.Contains(recorded, "\n"+name+"{") {
			t.Errorf("%s asks for %s, which a vLLM does not have", where, name)
		}
		allowed = append(allowed, "model_name")
	}
	if len(found)+len(engines) == 0 && !strings.Contains(expr, "up{") {
		t.Errorf("%s asks for nothing of ours: %s", where, expr)
	}
	for _, m := range regexp.MustCompile(`by \(([^)]*)\)|([a-z_]+) ?(?:=~|!=|!~|=)"`).FindAllStringSubmatch(expr, -1) {
		for name := range strings.SplitSeq(m[1]+m[2], ",") {
			if name = strings.TrimSpace(name); !slices.Contains(allowed, name) {
				t.Errorf("%s uses the label %s, which no metric in it has: %s", where, name, expr)
			}
		}
	}
	for _, pair := range []string{"()", "[]", "{}"} {
		if strings.Count(expr, pair[:1]) != strings.Count(expr, pair[1:]) {
			t.Errorf("%s: brackets do not match: %s", where, expr)
		}
	}
}

func TestAlertsAskForWhatExists(t *testing.T) {
	var doc struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.UnmarshalWithOptions([]byte(page(t, "deploy/prometheus/rules.yaml")), &doc, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	known, seen := metrics(t), map[string]bool{}
	for _, g := range doc.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || seen[r.Alert] || r.Annotations["summary"] == "" || r.Labels["severity"] == "" {
				t.Errorf("%s: alert %q is not whole, or there twice", g.Name, r.Alert)
			}
			seen[r.Alert] = true
			query(t, r.Alert, r.Expr, known)
			file, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "#")
			if anchor != strings.ToLower(r.Alert) || !anchors(page(t, file))[anchor] {
				t.Errorf("%s: runbook_url leads to %q, which is no section about it", r.Alert, r.Annotations["runbook_url"])
			}
		}
	}
	if len(seen) < 10 {
		t.Errorf("only %d alerts found", len(seen))
	}
}

func TestTheDashboardAsksForWhatExists(t *testing.T) {
	var doc struct {
		Panels []struct {
			ID      int
			Type    string
			Title   string
			Targets []struct{ Expr string }

			Description string
		}
	}
	if err := json.Unmarshal([]byte(page(t, "deploy/grafana/tollgate.json")), &doc); err != nil {
		t.Fatal(err)
	}
	known, ids := metrics(t), map[int]bool{}
	shown := map[string]bool{}
	for _, p := range doc.Panels {
		if ids[p.ID] {
			t.Errorf("panel %q: id %d is there twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks for nothing", p.Title)
		}
		if p.Type != "row" && p.Description == "" {
			t.Errorf("panel %q does not say what it shows", p.Title)
		}
		for _, target := range p.Targets {
			query(t, p.Title, target.Expr, known)
			for _, name := range metricName.FindAllString(target.Expr, -1) {
				shown[base(name)] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if !shown[name] && !strings.HasPrefix(name, "gen_ai_") { // ours by another name
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}
