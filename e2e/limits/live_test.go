package limits_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/e2e/stack"
	"tollgate/internal/admission"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

// chunks reads a stream until so many content chunks were seen.
func chunks(t *testing.T, in *bufio.Reader, n int) {
	t.Helper()
	for n > 0 {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ended early: %v", err)
		}
		if strings.Contains(line, `"content":"`) && !strings.Contains(line, `"role":`) {
			n--
		}
	}
}

func live(t *testing.T, s *stack.Stack) []admission.Running {
	t.Helper()
	var v struct {
		Requests []admission.Running `json:"requests"`
	}
	a := s.Admin("GET", "/admin/requests", "")
	if err := json.Unmarshal(a.Bytes, &v); err != nil || a.StatusCode != http.StatusOK || v.Requests == nil {
		t.Fatalf("live requests: %d %s", a.StatusCode, a.Bytes)
	}
	return v.Requests
}

func TestLiveRequestsAreShownAndCancelled(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{Keys: keys("ann", "", "bob", "")})
	if got := live(t, s); len(got) != 0 {
		t.Errorf("an idle gateway shows %v", got)
	}
	for name, c := range map[string]*http.Client{"h1": s.HTTP1, "h2": s.HTTP2} {
		t.Run(name, func(t *testing.T) {
			resp, _ := s.Open(c, secret("ann"), stack.Chat(true, 30, `"pause_after":7`))
			other, _ := s.Open(c, secret("bob"), stack.Chat(true, 30, `"pause_after":3`))
			in := bufio.NewReader(resp.Body)
			chunks(t, in, 7)
			got := live(t, s)
			i := slices.IndexFunc(got, func(r admission.Running) bool { return r.RequestID == resp.RequestID() })
			if len(got) != 2 || i < 0 {
				t.Fatalf("live requests: %+v", got)
			}
			if age := time.Since(got[i].StartedAt); age > time.Minute || age < 0 || got[i].LeaseID == "" {
				t.Errorf("%+v", got[i])
			}
			want := admission.Running{
				LeaseID: got[i].LeaseID, RequestID: resp.RequestID(), KeyID: "ann", User: "ann", Model: "tiny",
				Endpoint: stack.ChatPath, StartedAt: got[i].StartedAt, PromptTokens: 11, CompletionTokens: 7,
			}
			if diff := cmp.Diff(want, got[i]); diff != "" {
				t.Errorf("live request (-want +got):\n%s", diff)
			}
			cancelled(t, s, resp.RequestID(), in)
			// The other one goes on to its end.
			s.Sim.ReleaseRequest(other.RequestID())
			if rest, err := io.ReadAll(other.Body); err != nil || !strings.Contains(string(rest), "[DONE]") {
				t.Errorf("the other stream: %v", err)
			}
		})
	}
	s.Idle(time.Second)
}

// cancelled cancels a stream of 11 + 7 tokens and looks at its end.
func cancelled(t *testing.T, s *stack.Stack, id string, in io.Reader) {
	t.Helper()
	began := time.Now()
	if a := s.Admin("DELETE", "/admin/requests/"+id, ""); a.StatusCode != http.StatusOK {
		t.Fatalf("cancel: %d %s", a.StatusCode, a.Bytes)
	}
	rest, err := io.ReadAll(in)
	if err == nil || strings.Contains(string(rest), "[DONE]") {
		t.Errorf("a cancelled stream ended cleanly: %q", rest)
	}
	rec := s.RecordWhen(id, "named", ended)
	if rec.Reason != ledger.Cancelled || rec.Counts.Completion != 7 || rec.Counts.Prompt != 11 || rec.Quality != ledger.Exact {
		t.Errorf("%s %s %d + %d, want cancelled exact 11 + 7", rec.Reason, rec.Quality, rec.Counts.Prompt, rec.Counts.Completion)
	}
	if took := rec.EndedAt.Sub(began); took > 2*time.Second {
		t.Errorf("cut after %v", took)
	}
	stack.Eventually(t, 2*time.Second, "the engine to be told", func() bool { return s.Truth(id).Aborted })
	if a := s.Admin("DELETE", "/admin/requests/"+id, ""); stack.Refusal(t, a).Status != http.StatusNotFound {
		t.Errorf("cancelled again: %d", a.StatusCode)
	}
}

// TestARevokedKey: refused within a second, its streams cut within two.
func TestARevokedKey(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{Keys: keys("cli", "", "api", "", "gone", "", "file", "", "drain", "", "drainapi", "", "other", ""), Sim: vllmsim.Options{Delay: 20 * time.Millisecond}})
	cli := func(args ...string) func() {
		return func() {
			if code, _, errs := s.Command(args...); code != 0 {
				t.Fatalf("%v: exit %d %s", args, code, errs)
			}
		}
	}
	api := func(method, path, body string) func() {
		return func() {
			if a := s.Admin(method, path, body); a.StatusCode != http.StatusOK {
				t.Fatalf("%s %s: %d %s", method, path, a.StatusCode, a.Bytes)
			}
		}
	}
	other, _ := s.Open(s.HTTP1, secret("other"), stack.Chat(true, 2000, ""))
	for _, c := range []struct {
		id     string
		revoke func()
		drains bool
	}{
		{"cli", cli("keys", "disable", "cli"), false},
		{"api", api("PATCH", "/admin/keys/api", `{"enabled":false}`), false},
		{"gone", api("DELETE", "/admin/keys/gone", ""), false},
		{"file", func() {
			s.Write("keys.json", keys("cli", `"enabled":false`, "api", `"enabled":false`, "file", `"enabled":false`, "drain", "", "drainapi", "", "other", ""))
		}, false},
		{"drain", cli("keys", "disable", "drain", "--drain"), true},
		{"drainapi", api("PATCH", "/admin/keys/drainapi", `{"enabled":false,"drain":true}`), true},
	} {
		t.Run(c.id, func(t *testing.T) {
			h1, _ := s.Open(s.HTTP1, secret(c.id), stack.Chat(true, 100, ""))
			h2, _ := s.Open(s.HTTP2, secret(c.id), stack.Chat(true, 100, ""))
			silent, _ := s.Open(s.HTTP1, secret(c.id), stack.Chat(true, 100, `"pause_after":2`))
			s.RecordWhen(silent.Header.Get("X-Request-Id"), "written", func(ledger.Record) bool { return true })
			c.revoke()
			began := time.Now()
			stack.Eventually(t, time.Second, "new requests to be refused", func() bool { return ask(s, c.id, stack.Chat(false, 1, "")).StatusCode == http.StatusUnauthorized })
			refused := time.Since(began)
			stack.WantProblem(t, ask(s, c.id, stack.Chat(false, 1, "")), invalidKey)
			if c.drains {
				stack.Eventually(t, 2*time.Second, "the stream to pause", func() bool { return s.Truth(silent.Header.Get("X-Request-Id")).Paused })
				s.Sim.Release()
			}
			for _, resp := range []*stack.Answer{h1, h2, silent} {
				body, err := io.ReadAll(resp.Body)
				clean := err == nil && strings.Contains(string(body), "[DONE]")
				rec := s.RecordWhen(resp.Header.Get("X-Request-Id"), "named", ended)
				want := ledger.Revoked
				if c.drains {
					want = ledger.Complete
				}
				if clean != c.drains || rec.Reason != want || rec.Quality != ledger.Exact {
					t.Errorf("clean end %v, record %s %s with %d; want %v, %s", clean, rec.Reason, rec.Quality, rec.Counts.Completion, c.drains, want)
				}
				if took := rec.EndedAt.Sub(began); !c.drains && took > 2*time.Second {
					t.Errorf("cut after %v", took)
				}
			}
			t.Logf("refused after %v, streams ended after %v", refused, time.Since(began))
		})
	}
	if _, err := other.Body.Read(make([]byte, 100)); err != nil {
		t.Errorf("a stream of another key was cut: %v", err)
	}
	cli("keys", "enable", "cli")()
	stack.Eventually(t, time.Second, "the key to pass again", func() bool { return ask(s, "cli", stack.Chat(false, 1, "")).StatusCode == http.StatusOK })
}

// TestAStreamEndsWithItsSecret: a secret that no longer opens its key ends what
// it opened, as a revocation does; what the next secret opened goes on.
func TestAStreamEndsWithItsSecret(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{Keys: keys("leaked", "", "old", "", "ends", ""), Sim: vllmsim.Options{Delay: 20 * time.Millisecond}})
	long := stack.Chat(true, 2000, "")
	streams := map[string]*stack.Answer{}
	for _, id := range []string{"leaked", "old", "ends"} {
		streams[id], _ = s.Open(s.HTTP1, secret(id), long)
	}
	due := map[string]time.Time{}
	rotate := func(id, grace string) string {
		due[id] = time.Now()
		a := s.Admin("POST", "/admin/keys/"+id+"/rotate?grace="+grace, "")
		next, _ := a.JSON()["key"].(string)
		if a.StatusCode != http.StatusOK || next == "" {
			t.Fatalf("rotate %s: %d %s", id, a.StatusCode, a.Bytes)
		}
		return next
	}
	next, _ := s.Open(s.HTTP1, rotate("leaked", "0s"), long)
	rotate("old", "2s")
	due["old"] = due["old"].Add(time.Second) // whole seconds are stored
	due["ends"] = time.Now().UTC().Truncate(time.Second).Add(2 * time.Second)
	if a := s.Admin("PATCH", "/admin/keys/ends", `{"expires_at":"`+due["ends"].Format(time.RFC3339)+`"}`); a.StatusCode != http.StatusOK {
		t.Fatalf("expiry: %d %s", a.StatusCode, a.Bytes)
	}
	for id, resp := range streams {
		rec := s.RecordWhen(resp.RequestID(), "named", ended)
		if rec.Reason != ledger.Revoked || rec.Quality != ledger.Exact || rec.Counts.Completion == 0 {
			t.Errorf("%s: record %s %s with %d tokens, want revoked", id, rec.Reason, rec.Quality, rec.Counts.Completion)
		}
		if late := rec.EndedAt.Sub(due[id]); late < 0 || late > 3*time.Second {
			t.Errorf("%s: cut %v after its secret had ended", id, late)
		}
	}
	if rec := s.Records()[next.RequestID()]; !rec.Open() {
		t.Errorf("a stream of the new secret has ended: %s", rec.Reason)
	}
}

func TestRotationAndExpiry(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{Keys: keys("ann", "", "now", "")})
	pass := func(key string) bool {
		return s.Do(s.HTTP1, "POST", stack.ChatPath, stack.Chat(false, 1, ""), "Authorization", "Bearer "+key).StatusCode == http.StatusOK
	}
	code, fresh, _ := s.Command("keys", "rotate", "ann", "--grace", "2s")
	rotated := time.Now()
	fresh = strings.TrimSpace(fresh)
	if code != 0 || !strings.HasPrefix(fresh, "sk-") {
		t.Fatalf("rotate: exit %d %q", code, fresh)
	}
	stack.Eventually(t, time.Second, "the new secret to pass", func() bool { return pass(fresh) })
	tries := 0
	for time.Since(rotated) < 1500*time.Millisecond { // whole seconds are stored
		if !pass(secret("ann")) || !pass(fresh) {
			t.Fatalf("refused within the grace, after %v", time.Since(rotated))
		}
		tries += 2
		<-time.After(50 * time.Millisecond)
	}
	stack.Eventually(t, 2*time.Second, "the old secret to end", func() bool { return !pass(secret("ann")) })
	if !pass(fresh) {
		t.Error("the new secret ended too")
	}
	if v := view(t, s, "ann"); v.RequestsWindow < int64(tries) {
		t.Errorf("both secrets are one identity: %d requests of %d in its window", v.RequestsWindow, tries)
	}
	a := s.Admin("POST", "/admin/keys/now/rotate?grace=0s", "")
	if next, _ := a.JSON()["key"].(string); a.StatusCode != http.StatusOK || !pass(next) || pass(secret("now")) {
		t.Errorf("a secret that leaked still passes: %d", a.StatusCode)
	}
	expires := time.Now().Add(2 * time.Second).UTC().Truncate(time.Second).Add(time.Second)
	if a := s.Admin("PATCH", "/admin/keys/ann", `{"expires_at":"`+expires.Format(time.RFC3339)+`"}`); a.StatusCode != http.StatusOK || !pass(fresh) {
		t.Errorf("expiry: %d %s", a.StatusCode, a.Bytes)
	}
	stack.Eventually(t, 4*time.Second, "the key to expire", func() bool { return !pass(fresh) })
	if early := time.Until(expires); early > 0 {
		t.Errorf("expired %v too early", early)
	}
	if late := time.Since(expires); late > time.Second {
		t.Errorf("expired %v too late", late)
	}
}
