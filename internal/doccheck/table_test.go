package doccheck_test

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tollgate/internal/admin"
	"tollgate/internal/admission"
	"tollgate/internal/ledger"
	"tollgate/internal/openai"
)

func TestEveryRefusalIsInTheErrorTable(t *testing.T) {
	table := map[string][]string{}
	for _, row := range rows(page(t, "docs/errors.md")) {
		if len(row) == 5 && row[0] != "" {
			table[strings.Trim(row[0], "`")] = row
		}
	}
	for _, r := range admission.Reasons() {
		row, ok := table[string(r)]
		if !ok {
			t.Errorf("docs/errors.md has no row for %s", r)
			continue
		}
		is := openai.Denied(r)
		got := []string{row[1], strings.Trim(row[2], "`"), strings.Trim(row[3], "`")}
		want := []string{strconv.Itoa(is.Status), is.Type, is.Code}
		if !slices.Equal(got, want) {
			t.Errorf("docs/errors.md says that %s is %v, it is %v", r, got, want)
		}
		if says := strings.Contains(row[4], "x-should-retry"); says != (is.NoRetry && r == admission.QuotaSpent) {
			t.Errorf("docs/errors.md is wrong about the retries of %s", r)
		}
	}
}

func TestEveryEndIsInTheTableOfEnds(t *testing.T) {
	text := page(t, "docs/metering.md")
	var ends, qualities []string
	for _, row := range rows(text) {
		switch name := strings.Trim(row[0], "`"); {
		case len(row) == 4 && name != "end_reason":
			ends = append(ends, name)
		case len(row) == 2 && slices.Contains([]string{"exact", "partial", "estimated"}, name):
			qualities = append(qualities, name)
		}
	}
	var want []string
	for _, r := range ledger.EndReasons() {
		want = append(want, string(r))
	}
	slices.Sort(ends)
	slices.Sort(want)
	if !slices.Equal(ends, want) {
		t.Errorf("docs/metering.md has the ends\n%v, there are\n%v", ends, want)
	}
	if len(qualities) != 3 {
		t.Errorf("docs/metering.md explains the qualities %v", qualities)
	}
}

// The routes of the admin API, in its code and in its page.
func TestEveryAdminRouteIsDocumented(t *testing.T) {
	var has, shown []string
	for _, operation := range admin.Operations() {
		if !strings.Contains(operation, " /v1/") { // what a key sees of itself is in docs/routes.md
			has = append(has, operation)
		}
	}
	text := page(t, "docs/admin-api.md")
	for _, row := range rows(text) {
		if name := strings.Trim(row[0], "`"); regexp.MustCompile(`^[A-Z]+ /`).MatchString(name) {
			shown = append(shown, name)
		}
	}
	slices.Sort(has)
	slices.Sort(shown)
	if len(has) < 15 || !slices.Equal(has, shown) {
		t.Errorf("docs/admin-api.md lists the routes\n%v, the API has\n%v", shown, has)
	}
	// Each has an example.
	examples := strings.Join(blocks(text, "sh"), "\n")
	for _, route := range has {
		method, path, _ := strings.Cut(route, " ")
		path, _, _ = strings.Cut(path, "{")
		if route == "GET /admin/keys" {
			continue // shown by the one below it
		}
		example := regexp.MustCompile(`(?m)^curl .*\$GATE` + regexp.QuoteMeta(path))
		if method != "GET" {
			example = regexp.MustCompile(`(?m)^curl .*-X ` + method + ` "?\$GATE` + regexp.QuoteMeta(path))
		}
		if !example.MatchString(examples) {
			t.Errorf("docs/admin-api.md has no example of %s", route)
		}
	}
}
