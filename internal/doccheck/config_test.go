package doccheck_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"tollgate/internal/apikey"
	"tollgate/internal/certtest"
	"tollgate/internal/config"
)

// settings are all keys of the configuration that have a value of their own,
// with their defaults as the sample writes them.
func settings(t *testing.T) map[string]string {
	t.Helper()
	var sample map[string]any
	if err := yaml.Unmarshal(config.Sample(false), &sample); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	flatten(t, "", sample, out)
	if len(out) < 50 {
		t.Fatalf("only %d settings found", len(out))
	}
	return out
}

func flatten(t *testing.T, prefix string, m map[string]any, out map[string]string) {
	t.Helper()
	for name, value := range m {
		if sub, ok := value.(map[string]any); ok && len(sub) > 0 {
			flatten(t, prefix+name+".", sub, out)
			continue
		}
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		out[prefix+name] = string(text)
	}
}

// The sample itself is held to the struct, so that the page is, too.
func TestTheSampleHasEveryKey(t *testing.T) {
	known := settings(t)
	walk(t, "", reflect.TypeFor[config.Config](), known)
}

func walk(t *testing.T, prefix string, typ reflect.Type, known map[string]string) {
	t.Helper()
	for f := range typ.Fields() {
		name := prefix + f.Tag.Get("yaml")
		if f.Tag.Get("yaml") == "-" {
			continue // no part of the file
		}
		if f.Type.Kind() == reflect.Struct {
			walk(t, name+".", f.Type, known)
			continue
		}
		if _, ok := known[name]; !ok {
			t.Errorf("%s is in config.Config and not in the sample", name)
		}
	}
}

func TestEverySettingIsExplainedWithItsDefault(t *testing.T) {
	want := settings(t)
	for _, row := range rows(page(t, "docs/configuration.md")) {
		if len(row) != 3 || row[0] == "key" {
			continue
		}
		key, shown := strings.Trim(row[0], "`"), strings.Trim(row[1], "`")
		value, ok := want[key]
		switch {
		case !ok:
			t.Errorf("docs/configuration.md explains %s, which is no setting or stands there twice", key)
		case shown != value && `"`+shown+`"` != value:
			t.Errorf("docs/configuration.md says that %s is %s by default, it is %s", key, shown, value)
		}
		delete(want, key)
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		t.Errorf("docs/configuration.md does not explain %s", key)
	}
}

// A word like `store.redis.timeout`, or `drain_timeout`, is a setting that
// exists.
func TestSettingsNamedInPagesExist(t *testing.T) {
	known := map[string]bool{}
	top := map[string]bool{}
	for key := range settings(t) {
		parts := strings.Split(key, ".")
		top[parts[0]] = true
		for i := range parts {
			known[strings.Join(parts[:i+1], ".")] = true
		}
	}
	dotted := regexp.MustCompile(`^([a-z_]+)(\.[a-z_]+)+$`)
	for path, text := range pages(t) {
		if !strings.HasPrefix(path, "docs/") && path != "README.md" {
			continue
		}
		for _, word := range code(text) {
			word = strings.TrimSuffix(strings.SplitN(word, ": ", 2)[0], ":")
			m := dotted.FindStringSubmatch(word)
			if m == nil || !top[m[1]] || strings.HasPrefix(word, "envoy.filters") || regexp.MustCompile(`\.(log|md|json|yaml|yml|db|pid|sock|go)$`).MatchString(word) {
				continue
			}
			if !known[word] {
				t.Errorf("%s names the setting %s, which does not exist", path, word)
			}
		}
	}
}

func TestConfigurationsInPagesAreValid(t *testing.T) {
	shown := 0
	// The files of the examples do not exist. This one has all that they may hold.
	pair := certtest.New(t, "an example").Issue(t, certtest.Leaf{})
	mine := certtest.Write(t, t.TempDir(), "file", slices.Concat(pair.Cert, pair.Key))
	for path, text := range pages(t) {
		if strings.Contains(path, "decisions") || path == "envoy/README.md" {
			continue
		}
		for _, block := range blocks(text, "yaml") {
			shown++
			block = regexp.MustCompile(`/etc/tollgate/[a-z.]+`).ReplaceAllString(block, mine)
			if _, err := config.Parse(path, []byte(block)); err != nil {
				t.Errorf("a configuration in %s is wrong:\n%v", path, err)
			}
		}
	}
	if shown < 5 {
		t.Errorf("only %d configurations found", shown)
	}
}

func TestTheKeyFileShownIsValid(t *testing.T) {
	shown := blocks(page(t, "docs/keys.md"), "json")
	if len(shown) != 1 {
		t.Fatalf("docs/keys.md shows %d key files", len(shown))
	}
	ring, err := apikey.Parse("docs/keys.md", []byte(shown[0]))
	if err != nil {
		t.Fatal(err)
	}
	if ring.Len() != 2 {
		t.Errorf("docs/keys.md shows %d keys", ring.Len())
	}
}
