package fleet_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/internal/fleet"
)

// eventually waits for a condition that other goroutines bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-end:
			t.Fatalf("never came: %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func api(address string) fleet.Entry {
	return fleet.Entry{Address: address, Weight: 1, Origin: fleet.FromAPI, By: "boss"}
}

func TestEnginesOfDifferentModelsGetTheirOwnRequests(t *testing.T) {
	a, b, c := start(t), start(t), start(t)
	a.set(true, list(`{"id":"m1","max_model_len":4096}`))
	b.set(true, list(`{"id":"m1","max_model_len":2048}`, `{"id":"m2","max_model_len":512}`))
	c.set(true, list(`{"id":"m3"}`, `{"id":"lora","parent":"m3"}`))
	f := watch(t, fleet.Options{File: entries(a.address(), b.address(), c.address())})
	v := f.View()
	for model, want := range map[string][]string{
		"m1": {a.address(), b.address()}, "m2": {b.address()}, "lora": {c.address()}, "m4": nil,
	} {
		var got []string
		for _, e := range v.Serving(model) {
			got = append(got, e.Endpoint)
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: served by %v, want %v", model, got, want)
		}
	}
	if n, _ := v.Model("m1"); n != 2048 {
		t.Errorf("m1 takes %d tokens, want the smaller length of its engines", n)
	}
	if w := strings.Join(v.Warnings(), "\n"); !strings.Contains(w, "the engines of m1 have different context lengths") || !strings.Contains(w, a.address()+" takes 4096") {
		t.Errorf("warnings: %q", w)
	}
	c.set(false, "")
	f.Refresh(t.Context())
	if v := f.View(); !v.Listed("lora") || strings.Join(v.Lost(), " ") != "lora m3" {
		t.Errorf("without its engine: listed %v, lost %v", v.Listed("lora"), v.Lost())
	}
}

func TestAnEngineComesAtRunTimeAndIsThereAfterARestart(t *testing.T) {
	a := start(t)
	path := filepath.Join(t.TempDir(), "engines.json")
	f := watch(t, fleet.Options{Path: path})
	if f.Ready() || !f.View().Settled() {
		t.Errorf("without an engine: ready %v, settled %v", f.Ready(), f.View().Settled())
	}
	if created, err := f.Put(api(a.address())); err != nil || !created {
		t.Fatalf("add: %v, %v", created, err)
	}
	if created, err := f.Put(api(a.address())); err != nil || created {
		t.Errorf("add again: %v, %v", created, err)
	}
	f.Refresh(t.Context())
	if _, ok := f.Model("base"); !ok {
		t.Error("its model is not served")
	}
	again := watch(t, fleet.Options{Path: path})
	if e := again.View().Engines(); len(e) != 1 || e[0].Address != a.address() || !e[0].Ready {
		t.Errorf("after a restart: %+v", e)
	}
	file := watch(t, fleet.Options{Path: path, File: []fleet.Entry{{Address: a.address(), Line: 7}}})
	if e := file.View().Engines(); len(e) != 1 {
		t.Errorf("named twice: %+v", e)
	}
	var named *fleet.FileError
	if err := file.Remove(a.address(), ""); !errors.As(err, &named) || named.Line != 7 {
		t.Errorf("remove what the file names: %v", err)
	}
	if _, err := file.Put(api(a.address())); !errors.As(err, &named) {
		t.Errorf("add what the file names: %v", err)
	}
}

func TestARemovedEngineFinishesItsWork(t *testing.T) {
	a, b := start(t), start(t)
	f := watch(t, fleet.Options{File: entries(b.address())})
	var mu sync.Mutex
	live := 1
	f.SetBusy(func(endpoint string) int {
		mu.Lock()
		defer mu.Unlock()
		if endpoint == a.address() {
			return live
		}
		return 0
	})
	if _, err := f.Put(api(a.address())); err != nil {
		t.Fatal(err)
	}
	f.Refresh(t.Context())
	if n := len(f.View().Serving("base")); n != 2 {
		t.Fatalf("%d engines serve it, want 2", n)
	}
	if err := f.Remove(a.address(), ""); err != nil {
		t.Fatal(err)
	}
	if s := f.View().Serving("base"); len(s) != 1 || s[0].Endpoint != b.address() {
		t.Errorf("a draining engine gets requests: %+v", s)
	}
	f.Refresh(t.Context())
	if n := len(f.View().Engines()); n != 2 {
		t.Errorf("%d engines while one drains, want 2", n)
	}
	mu.Lock()
	live = 0
	mu.Unlock()
	eventually(t, "the engine is gone", func() bool { return len(f.View().Engines()) == 1 })
	if err := f.Remove(a.address(), ""); !errors.Is(err, fleet.ErrUnknown) {
		t.Errorf("remove again: %v", err)
	}
}

func TestALauncherThatIsSilentTakesItsEngineOut(t *testing.T) {
	a := start(t)
	path := filepath.Join(t.TempDir(), "engines.json")
	f := watch(t, fleet.Options{Path: path, Silence: 1500 * time.Millisecond})
	mine := fleet.Entry{Address: a.address(), Weight: 2, Origin: fleet.FromLauncher, By: "gpu-1"}
	if _, err := f.Put(mine); err != nil {
		t.Fatal(err)
	}
	f.Refresh(t.Context())
	if !f.Ready() {
		t.Fatal("not ready")
	}
	other := mine
	other.By = "gpu-2"
	if _, err := f.Put(other); !errors.Is(err, fleet.ErrNotYours) {
		t.Errorf("another launcher's key: %v", err)
	}
	if err := f.Remove(a.address(), "gpu-2"); !errors.Is(err, fleet.ErrNotYours) {
		t.Errorf("another launcher's key removes it: %v", err)
	}
	eventually(t, "it is taken out", func() bool { return !f.Ready() })
	if v := f.View(); !v.Listed("base") || !strings.Contains(v.Engines()[0].Error, "silent") {
		t.Errorf("afterwards: listed %v, %+v", v.Listed("base"), v.Engines()[0])
	}
	if _, err := f.Put(mine); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is back", f.Ready)
	if err := f.Remove(a.address(), "gpu-1"); err != nil {
		t.Errorf("its own key: %v", err)
	}
}

func TestWhatIsNoEngineIsRefusedAndChangesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "engines.json")
	f := watch(t, fleet.Options{Path: path, Self: []string{"127.0.0.1:8080"}})
	for name, e := range map[string]fleet.Entry{
		"no port":     {Address: "10.0.0.2", Weight: 1},
		"a URL":       {Address: "http://10.0.0.2:8000", Weight: 1},
		"no host":     {Address: ":8000", Weight: 1},
		"port 0":      {Address: "10.0.0.2:0", Weight: 1},
		"weight 0":    {Address: "10.0.0.2:8000"},
		"weight -1":   {Address: "10.0.0.2:8000", Weight: -1},
		"much weight": {Address: "10.0.0.2:8000", Weight: 1001},
		"ourselves":   {Address: "127.0.0.1:8080", Weight: 1},
	} {
		e.Origin = fleet.FromAPI
		if _, err := f.Put(e); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if n := len(f.View().Engines()); n != 0 {
		t.Errorf("%d engines", n)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("a file was written: %v", err)
	}
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	for _, broken := range []string{`{`, `{"engines":[{"address":"x"}]}`, `{"engines":[{"address":"10.0.0.2:8000","weight":0,"origin":"api"}]}`} {
		bad := filepath.Join(t.TempDir(), "engines.json")
		if err := os.WriteFile(bad, []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := fleet.New(fleet.Options{Path: bad}); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", broken, err)
		}
	}
}

func TestAnEngineByNameIsKnownByItsAddress(t *testing.T) {
	a := start(t)
	_, port, _ := strings.Cut(a.address(), ":")
	f := watch(t, fleet.Options{File: entries("LocalHost:" + port)})
	eventually(t, "its name resolves", f.Ready)
	e := f.View().Serving("base")[0]
	if e.Endpoint != a.address() || e.Address != "localhost:"+port {
		t.Errorf("%+v", e)
	}
	if _, err := f.Put(api(a.address())); err != nil {
		t.Fatal(err)
	}
	if w := strings.Join(f.View().Warnings(), " "); !strings.Contains(w, "are the same engine") || len(f.View().Engines()) != 1 {
		t.Errorf("two names of one engine: %q, %+v", w, f.View().Engines())
	}
	nowhere := watch(t, fleet.Options{File: entries("no-such-host.invalid:8000")})
	eventually(t, "it is said", func() bool { return nowhere.View().Engines()[0].Error == "its name does not resolve" })
}

func TestHooksSeeEveryChangeInOrder(t *testing.T) {
	a := start(t)
	f := watch(t, fleet.Options{})
	var mu sync.Mutex
	var seen []int
	f.OnChange(func(v *fleet.View) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, len(v.Names()))
	})
	if _, err := f.Put(api(a.address())); err != nil {
		t.Fatal(err)
	}
	f.Refresh(t.Context())
	a.set(true, list(`{"id":"base"}`))
	f.Refresh(t.Context())
	mu.Lock()
	defer mu.Unlock()
	if len(seen) < 3 || seen[0] != 0 || seen[len(seen)-1] != 1 || seen[len(seen)-2] != 2 {
		t.Errorf("names seen: %v, want 0 … 2 1", seen)
	}
}

func TestManyNames(t *testing.T) {
	a := start(t)
	names := make([]string, 9999)
	for i := range names {
		// A real engine says so much of each.
		names[i] = `{"id":"adapter-` + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + time.Duration(i).String() +
			`","parent":"base","permission":[{"id":"` + strings.Repeat("p", 450) + `"}]}`
	}
	a.set(true, list(append([]string{`{"id":"base","max_model_len":77}`}, names...)...))
	f := watch(t, fleet.Options{File: entries(a.address())})
	if n := len(f.Names()); n != 10000 {
		t.Errorf("%d names: %+v", n, f.States()[0].Error)
	}
	a.set(true, list(append([]string{`{"id":"base"}`, `{"id":"more"}`}, names...)...))
	f.Refresh(t.Context())
	if s := f.States()[0]; s.Ready || !strings.Contains(s.Error, "more than 10000 entries") {
		t.Errorf("one too many: ready %v, %q", s.Ready, s.Error)
	}
	a.set(true, list(`{"id":"base"}`))
	f.Refresh(t.Context())
	if n := len(f.Names()); n != 1 {
		t.Errorf("%d names after the list has changed", n)
	}
}

// TestNothingRunsAfterTheEnd: stopping a fleet that changes leaves nothing behind.
func TestNothingRunsAfterTheEnd(t *testing.T) {
	a := start(t)
	f, err := fleet.New(fleet.Options{File: entries("localhost:1")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = f.Run(ctx) }()
	var adding sync.WaitGroup
	adding.Go(func() {
		for range 50 {
			_, _ = f.Put(api(a.address()))
			_ = f.Remove(a.address(), "")
		}
	})
	cancel()
	<-done
	adding.Wait()
	f.Refresh(ctx)
	if _, err := f.Put(api(a.address())); err != nil {
		t.Error(err)
	}
}
