package limits_test

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"

	"tollgate/e2e/stack"
)

// rider is a client that makes calls one after another and says how each ended.
type rider func(t *testing.T, s *stack.Stack, id string, calls int) []string

// TestTheOfficialClientsRetryWhatTheyShould: with their retries as they come,
// a rate that refuses is ridden out, a spent quota is given up at once.
func TestTheOfficialClientsRetryWhatTheyShould(t *testing.T) {
	t.Parallel()
	for name, ride := range map[string]rider{"openai-go": rideGo, "openai-python": ridePython} {
		t.Run(name, func(t *testing.T) {
			t.Run("rate", func(t *testing.T) {
				s := stack.Start(t, stack.Options{Config: "rate_limit: {qps: 2}", Keys: keys("ann", "")})
				<-time.After(1500 * time.Millisecond) // the start itself was charged
				for i, got := range ride(t, s, "ann", 6) {
					if got != "ok" {
						t.Errorf("call %d: %s", i, got)
					}
				}
				if s.Metric("tollgate_admission_decisions_total", "decision", "qps") == 0 {
					t.Error("nothing was refused: this shows nothing")
				}
			})
			t.Run("slots", func(t *testing.T) {
				s := stack.Start(t, stack.Options{Keys: keys("ann", `"limits":{"concurrent":1}`)})
				_, end := s.Open(s.HTTP1, secret("ann"), stack.Chat(true, 20, `"pause_after":1`))
				// Freed once the client has been refused.
				go func() {
					for i := 0; i < 500 && s.Metric("tollgate_admission_decisions_total", "decision", "concurrent_key") == 0; i++ {
						<-time.After(20 * time.Millisecond)
					}
					end()
				}()
				if got := ride(t, s, "ann", 1); len(got) != 1 || got[0] != "ok" {
					t.Errorf("got %v", got)
				}
			})
			t.Run("quota", func(t *testing.T) {
				s := stack.Start(t, stack.Options{Keys: keys("ann", `"quota":10`)})
				began := time.Now()
				got := ride(t, s, "ann", 2)
				if len(got) != 2 || got[0] != "ok" || !strings.HasPrefix(got[1], "429 insufficient_quota") {
					t.Errorf("got %v, want ok and 429 insufficient_quota", got)
				}
				if n := s.Metric("tollgate_admission_decisions_total", "decision", "quota"); n != 1 {
					t.Errorf("a spent quota was tried %v times in %v, want once", n, time.Since(began))
				}
			})
		})
	}
}

func rideGo(t *testing.T, s *stack.Stack, id string, calls int) (out []string) {
	t.Helper()
	c := openai.NewClient(option.WithBaseURL(s.URL+"/v1"), option.WithAPIKey(secret(id)))
	for range calls {
		_, err := c.Chat.Completions.New(t.Context(), openai.ChatCompletionNewParams{
			Model: "tiny", MaxTokens: param.NewOpt(int64(3)),
			Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hi")},
		})
		var api *openai.Error
		switch {
		case err == nil:
			out = append(out, "ok")
		case errors.As(err, &api):
			out = append(out, strconv.Itoa(api.StatusCode)+" "+api.Code)
		default:
			t.Fatal(err)
		}
	}
	return out
}

func ridePython(t *testing.T, s *stack.Stack, id string, calls int) []string {
	t.Helper()
	cmd := exec.Command(stack.Python(t, "sdks", "requirements.txt"), "testdata/ride.py", s.URL+"/v1", secret(id), strconv.Itoa(calls))
	cmd.Env = append(os.Environ(), "NO_PROXY=127.0.0.1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("ride.py: %v\n%s", err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}
