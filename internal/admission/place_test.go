package admission_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/admission"
	"tollgate/internal/alias"
	"tollgate/internal/apikey"
	"tollgate/internal/ledger"
	"tollgate/internal/placement"
)

// several is a catalog of engines by model. Models without an engine are listed.
type several map[string][]string

func (s several) Model(name string) (int64, bool) { return 1024, len(s[name]) > 0 }
func (s several) Ready() bool                     { return true }
func (s several) Only() string                    { return "" }
func (s several) Listed(name string) bool         { _, ok := s[name]; return ok }

func (s several) Names() (names []string) {
	for name, engines := range s {
		if len(engines) > 0 {
			names = append(names, name)
		}
	}
	return names
}

func (s several) Serving(model string, list []placement.Engine) []placement.Engine {
	for _, e := range s[model] {
		list = append(list, placement.Engine{Endpoint: e, Weight: 1})
	}
	return list
}

// placed is a bench with engines, aliases and keys of an alias, a pattern and a model.
func placed(t *testing.T, engines several) (*bench, *placement.Placer) {
	t.Helper()
	p := placement.New(placement.Options{Policy: placement.Prefix, MaxLoad: 1.25})
	return newBench(t, unlimited, func(o *admission.Options) {
		o.Keys = fixedKeys{ring(t, `[
			{"key": "`+keyA+`", "id": "all", "user": "ann"},
			{"key": "`+keyB+`", "id": "chat", "user": "bob", "models": ["chat"]},
			{"key": "sk-pattern0000000000000000", "id": "claude", "user": "cy", "models": ["claude-*"]}]`)}
		o.Catalog = engines
		o.Placing = admission.Placing{Engines: engines, Placer: p, Aliases: alias.New([]alias.Alias{
			{Name: "chat", Targets: []alias.Target{{Model: "m1", Weight: 1}}, Fallback: []string{"m2"}},
			{Name: "claude-*", Targets: []alias.Target{{Model: "m1", Weight: 1}}},
			{Name: "nothing", Targets: []alias.Target{{Model: "unheard", Weight: 1}}},
		})}
	}), p
}

const keyPattern = "sk-pattern0000000000000000"

// TestWhoReachesWhichModel tries every way round the right to an alias.
func TestWhoReachesWhichModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := placed(t, several{"m1": {"a"}, "m2": {"b"}, "claude-tuned": {"a"}, "away": nil})
		for _, tt := range []struct {
			key, asked, model string
			reason            admission.Reason
			nearest           string
		}{
			{keyA, "m1", "m1", "", ""},
			{keyA, "chat", "m1", "", ""},
			{keyA, "claude-3", "m1", "", ""},
			{keyA, "claude-tuned", "claude-tuned", "", ""},
			{keyA, "away", "", admission.EngineUnavailable, ""},
			{keyA, "nothing", "", admission.EngineUnavailable, ""},
			{keyA, "M1", "", admission.ModelUnknown, "m1"},
			{keyA, "unheard", "", admission.ModelUnknown, ""},
			{keyB, "chat", "m1", "", ""},
			{keyB, "m1", "", admission.ModelUnknown, ""},
			{keyB, "m2", "", admission.ModelUnknown, ""},
			{keyB, "Chat", "", admission.ModelUnknown, "chat"},
			{keyB, "chat*", "", admission.ModelUnknown, "chat"},
			{keyB, "claude-3", "", admission.ModelUnknown, ""},
			{keyB, "nothing", "", admission.ModelUnknown, ""},
			{keyB, "away", "", admission.ModelUnknown, ""},
			{keyPattern, "claude-3", "m1", "", ""},
			{keyPattern, "claude-*", "m1", "", ""},
			{keyPattern, "claude-tuned", "", admission.ModelUnknown, ""},
			{keyPattern, "m1", "", admission.ModelUnknown, ""},
			{keyPattern, "claude-\x00", "", admission.ModelUnknown, ""},
			{keyPattern, "*", "", admission.ModelUnknown, ""},
		} {
			s := b.claimed(tt.key)
			o := order()
			o.Model = tt.asked
			err := s.Reserve(t.Context(), o)
			if tt.reason != "" {
				var denied *admission.DenialError
				if !errors.As(err, &denied) || denied.Reason != tt.reason || denied.Nearest != tt.nearest {
					t.Errorf("%s asks for %q: got %+v, want %s and nearest %q", s.Key().ID, tt.asked, err, tt.reason, tt.nearest)
				}
				s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
				continue
			}
			if err != nil {
				t.Errorf("%s asks for %q: %v", s.Key().ID, tt.asked, err)
				continue
			}
			if model, _ := s.Endpoints(); model != tt.model {
				t.Errorf("%s asks for %q: gets %q, want %q", s.Key().ID, tt.asked, model, tt.model)
			}
			if rec := b.record(s); rec.Model != tt.model || rec.RequestedModel != tt.asked || rec.Engine == "" {
				t.Errorf("%q: the ledger has %q for %q at %q", tt.asked, rec.Model, rec.RequestedModel, rec.Engine)
			}
			s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
		}
		time.Sleep(5 * time.Second) // no log entry comes
		for _, c := range [][2]string{{"m1", "chat"}, {"m1", "claude-*"}, {"m1", "m1"}, {"claude-tuned", "claude-tuned"}} {
			if got := b.metric("model_requests_total", "model", c[0], "requested_model", c[1]); got == 0 {
				t.Errorf("no request for %s that %s served is counted", c[1], c[0])
			}
		}
	})
}

// TestAFallbackIsChargedOnce, to the model that served.
func TestAFallbackIsChargedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := placed(t, several{"m1": nil, "m2": {"b", "c"}})
		s := b.claimed(keyB)
		o := order()
		o.Model = "chat"
		if err := s.Reserve(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		model, endpoints := s.Endpoints()
		if slices.Sort(endpoints); model != "m2" || !slices.Equal(endpoints, []string{"b", "c"}) {
			t.Errorf("it goes to %s at %v", model, endpoints)
		}
		// The first engine cannot be reached; the proxy goes to the second.
		s.ServedBy("c")
		if p.Live("b") != 0 || p.Live("c") != 1 || p.Load("c") == 0 {
			t.Errorf("seats at b %d, at c %d with %v", p.Live("b"), p.Live("c"), p.Load("c"))
		}
		s.FirstByte()
		if err := s.Settle(t.Context(), admission.Outcome{Reason: ledger.Complete, Status: 200, Engine: "c", Report: said(7, 5, true)}); err != nil {
			t.Fatal(err)
		}
		s.Close(t.Context(), admission.Outcome{})
		rec := b.record(s)
		if diff := cmp.Diff([]any{"m2", "chat", "c", int64(7), int64(5)},
			[]any{rec.Model, rec.RequestedModel, rec.Engine, rec.Counts.Prompt, rec.Counts.Completion}); diff != "" {
			t.Errorf("the row (-want +got):\n%s", diff)
		}
		if used := b.view("chat").TokensWindow; used != 12 {
			t.Errorf("%d tokens are charged, want 12", used)
		}
		if p.Live("c") != 0 || p.Load("c") != 0 {
			t.Errorf("after its end: %d seats, load %v", p.Live("c"), p.Load("c"))
		}
	})
}

// TestASeatIsGivenBackHoweverARequestEnds.
func TestASeatIsGivenBackHoweverARequestEnds(t *testing.T) {
	engines := several{"m1": {"a", "b"}}
	for name, end := range map[string]func(*testing.T, *bench, *admission.Session){
		"left": func(t *testing.T, _ *bench, s *admission.Session) {
			t.Helper()
			s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
		},
		"killed": func(_ *testing.T, b *bench, s *admission.Session) { b.Revoke(&apikey.Ring{}) },
		"cut": func(t *testing.T, b *bench, s *admission.Session) {
			t.Helper()
			b.CutAll()
			s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
		},
		"unwritten": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, p := placed(t, engines)
				if end == nil {
					b.ledger.fail(ledger.ErrUnavailable, nil)
				}
				s := b.claimed(keyA)
				o := order()
				o.Model, o.Prompt = "m1", nil
				err := s.Reserve(t.Context(), o)
				if (err != nil) != (end == nil) {
					t.Fatal(err)
				}
				if end != nil && p.Live("a")+p.Live("b") != 1 {
					t.Fatalf("%d seats while it runs", p.Live("a")+p.Live("b"))
				}
				if end != nil {
					end(t, b, s)
				}
				s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
				synctest.Wait()
				if got := p.Live("a") + p.Live("b"); got != 0 || p.Load("a")+p.Load("b") != 0 {
					t.Errorf("%d seats and a load of %v are left", got, p.Load("a")+p.Load("b"))
				}
			})
		})
	}
}

// TestAConversationComesBackToItsEngine through the gate, and two keys do not share
// where caches are isolated.
func TestAConversationComesBackToItsEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := placed(t, several{"m1": {"a", "b", "c"}})
		ask := func(key string, isolated bool, messages ...string) string {
			s := b.claimed(key)
			o := order()
			o.Model = "claude-x"
			if got := s.Resolve(o.Model); got != "m1" {
				t.Fatalf("it is served by %q", got)
			}
			o.Prompt = s.Prompt(isolated)
			for _, m := range messages {
				o.Prompt.Text([]byte(m))
				o.Prompt.End()
			}
			if err := s.Reserve(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			_, endpoints := s.Endpoints()
			time.Sleep(time.Millisecond)
			s.FirstByte()
			if err := s.Settle(t.Context(), admission.Outcome{Reason: ledger.Complete, Status: 200, Engine: endpoints[0], Report: said(9, 3, true)}); err != nil {
				t.Fatal(err)
			}
			s.Close(t.Context(), admission.Outcome{})
			return endpoints[0]
		}
		past := []string{"a long system prompt", "a question"}
		home := ask(keyA, false, past...)
		for range 3 {
			past = append(past, "an answer", "and more")
			if at := ask(keyA, false, past...); at != home {
				t.Errorf("it went from %s to %s", home, at)
			}
		}
		if at := ask(keyPattern, false, past...); at != home {
			t.Errorf("another key with the same past went to %s, not to %s", at, home)
		}
		first := ask(keyA, true, past...)
		if again := ask(keyA, true, past...); again != first {
			t.Errorf("isolated: from %s to %s", first, again)
		}
		if other := ask(keyPattern, true, past...); other == first {
			t.Errorf("isolated: both keys at %s", other)
		}
	})
}
