package fleet_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tollgate/internal/fleet"
)

// fake is an engine whose answers can be changed.
type fake struct {
	*httptest.Server
	mu      sync.Mutex
	healthy bool
	models  string
	keys    []string // that came with the model list
}

func start(t *testing.T) *fake {
	t.Helper()
	f := &fake{healthy: true, models: list(`{"id":"base","max_model_len":4096}`, `{"id":"lora","parent":"base","max_model_len":null}`)}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func list(models ...string) string {
	return `{"object":"list","data":[` + strings.Join(models, ",") + `]}`
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case r.URL.Path == "/health" && r.Header.Get("Authorization") != "":
		w.WriteHeader(http.StatusTeapot) // the key is for the list alone
	case r.URL.Path == "/health" && !f.healthy:
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.URL.Path == "/v1/models":
		f.keys = append(f.keys, r.Header.Get("Authorization"))
		_, _ = io.WriteString(w, f.models)
	}
}

func (f *fake) set(healthy bool, models string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.healthy, f.models = healthy, models
}

func (f *fake) address() string { return strings.TrimPrefix(f.URL, "http://") }

func entries(addresses ...string) []fleet.Entry {
	out := make([]fleet.Entry, len(addresses))
	for i, a := range addresses {
		out[i] = fleet.Entry{Address: a}
	}
	return out
}

// watch runs a fleet and returns when it has looked once.
func watch(t *testing.T, o fleet.Options) *fleet.Fleet {
	t.Helper()
	p, err := fleet.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	p.Refresh(t.Context())
	return p
}

func TestAFleetKnowsWhatIsServedAndHowLongItMayBe(t *testing.T) {
	f := start(t)
	p := watch(t, fleet.Options{File: entries(f.address())})
	for name, want := range map[string]int64{"base": 4096, "lora": 4096} {
		if n, ok := p.Model(name); !ok || n != want {
			t.Errorf("%s: %d %v, want %d", name, n, ok, want)
		}
	}
	if _, ok := p.Model("other"); ok {
		t.Error("a model that nobody serves may be asked for")
	}
	if !p.Ready() || p.Only() != f.address() {
		t.Errorf("ready %v, only %q", p.Ready(), p.Only())
	}
	want := []fleet.State{{Target: f.URL, Ready: true, Models: []string{"base", "lora"}}}
	if diff := cmp.Diff(want, p.States()); diff != "" {
		t.Error(diff)
	}
}

func TestAnEngineThatCannotAnswerIsNotReady(t *testing.T) {
	f := start(t)
	reg := prometheus.NewRegistry()
	p := watch(t, fleet.Options{File: entries(f.address()), Reg: reg})
	for name, c := range map[string]struct {
		healthy bool
		models  string
	}{
		"it says so":       {false, list(`{"id":"base"}`)},
		"it lists nothing": {true, list()},
		"the list is none": {true, `<html>`},
	} {
		f.set(c.healthy, c.models)
		p.Refresh(t.Context())
		if s := p.States()[0]; s.Ready || s.Error == "" || p.Ready() {
			t.Errorf("%s: %+v", name, s)
		}
		if n, _ := testutil.GatherAndCount(reg, "engine_up"); n != 1 {
			t.Errorf("%s: %d series", name, n)
		}
		if _, ok := p.Model("base"); ok {
			t.Errorf("%s: its model is still served", name)
		}
	}
	f.set(true, list(`{"id":"base","max_model_len":8}`))
	p.Refresh(t.Context())
	if n, ok := p.Model("base"); !ok || n != 8 {
		t.Errorf("when it is back: %d %v", n, ok)
	}
}

func TestOneEngineOfTwoIsEnough(t *testing.T) {
	f, down := start(t), start(t)
	down.set(false, "")
	p := watch(t, fleet.Options{File: entries(down.address(), f.address())})
	if !p.Ready() || p.Only() != "" {
		t.Errorf("ready %v, only %q", p.Ready(), p.Only())
	}
	if s := p.States(); s[0].Ready || !s[1].Ready {
		t.Errorf("states %+v", s)
	}
}

func TestTheKeyIsReadAtEachLookAndSentWithTheListOnly(t *testing.T) {
	f := start(t)
	file := filepath.Join(t.TempDir(), "key")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first\n")
	p := watch(t, fleet.Options{File: entries(f.address()), APIKeyFile: file})
	write("second\n")
	p.Refresh(t.Context())
	f.mu.Lock()
	keys := f.keys
	f.mu.Unlock()
	if keys[0] != "Bearer first" || keys[len(keys)-1] != "Bearer second" {
		t.Errorf("sent %q", keys)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	p.Refresh(t.Context())
	if s := p.States()[0]; s.Ready || strings.Contains(s.Error, "second") {
		t.Errorf("without its key: %+v", s)
	}
}

func TestWhereVLLMResolvesNamesAnAdaptersNamePasses(t *testing.T) {
	f := start(t)
	p := watch(t, fleet.Options{File: entries(f.address()), Resolve: true})
	for name, want := range map[string]bool{
		"support-v2": true, "a": true, strings.Repeat("a", 200): true,
		"": false, ".": false, "a/b": false, "..": false, "a..b": false, "-a": false, "a b": false, strings.Repeat("a", 201): false,
	} {
		if _, ok := p.Model(name); ok != want {
			t.Errorf("%q: %v, want %v", name, ok, want)
		}
	}
}

func TestAnEngineThatIsSilentForAMomentStaysReady(t *testing.T) {
	f := start(t)
	p := watch(t, fleet.Options{File: entries(f.address())})
	f.mu.Lock() // it accepts and says nothing
	p.Refresh(t.Context())
	ready := p.Ready()
	f.mu.Unlock()
	if _, ok := p.Model("base"); !ready || !ok {
		t.Errorf("after two seconds of silence: ready %v, model %v", ready, ok)
	}
	f.Close() // it refuses
	p.Refresh(t.Context())
	if s := p.States()[0]; s.Ready || p.Ready() {
		t.Errorf("without an engine: %+v", s)
	}
}
