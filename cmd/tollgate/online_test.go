package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestConfigCheckAsksTheEngines: a name that leads to no model of an engine is a warning,
// also of engines that came at run time, and nothing is changed.
func TestConfigCheckAsksTheEngines(t *testing.T) {
	engine := func(models ...string) string {
		e := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"data":[{"id":"`+strings.Join(models, `"},{"id":"`)+`"}]}`)
		}))
		t.Cleanup(e.Close)
		return strings.TrimPrefix(e.URL, "http://")
	}
	c := newCLI(t)
	path := c.write("c.yaml", fmt.Sprintf(`
state_dir: %s
engines: [%q]
models:
- {name: chat, targets: [{model: big}, {model: bgi}], fallback: [spare, lost]}
`, c.dir, engine("big", "small")))
	c.write("engines.json", fmt.Sprintf(`{"engines":[{"address":%q,"weight":1,"origin":"api"}]}`, engine("spare")))
	_, errs := c.run(0, "config", "check", "--config", path)
	if strings.Contains(errs, "engine") {
		t.Errorf("without the flag: %s", errs)
	}
	_, errs = c.run(0, "config", "check", "--online", "--config", path)
	contains(t, "online", errs, "warning: models[0]: chat leads to bgi, which no engine lists; did you mean big?", "warning: models[0]: chat leads to lost, which no engine lists\n")
	if n := strings.Count(errs, "which no engine lists"); n != 2 {
		t.Errorf("%d warnings of names: %s", n, errs)
	}
	c.write("engines.json", `{"engines":[{"address":"127.0.0.1:1","weight":1,"origin":"api"}]}`)
	_, errs = c.run(0, "config", "check", "--online", "--config", path)
	contains(t, "one is away", errs, "warning: the engine at 127.0.0.1:1 does not say what it serves: ", "chat leads to spare, which no engine lists (1 of them did not answer)")
}
