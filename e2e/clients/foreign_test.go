package clients_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/e2e/stack"
	"tollgate/internal/vllmsim"
)

// TestAnErrorOfTheEngineHasTheShapeThatClientsRead: a model without embeddings
// answers its route as FastAPI does; what has a shape already stays, byte by byte.
func TestAnErrorOfTheEngineHasTheShapeThatClientsRead(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{Sim: vllmsim.Options{GenerateOnly: true}})
	for _, c := range []*http.Client{s.HTTP1, s.HTTP2} {
		a := s.Do(c, http.MethodPost, "/v1/embeddings", `{"model":"tiny","input":"hi"}`, "Authorization", "Bearer "+stack.Key)
		if diff := cmp.Diff(stack.Problem{Status: 404, Type: "invalid_request_error", Code: "not_found"}, stack.Refusal(t, a)); diff != "" {
			t.Errorf("an unknown route (-want +got):\n%s%s", diff, a.Bytes)
		}
	}
	own := `{"error":{"message":"` + strings.Repeat("long ", 5000) + `","type":"BadRequestError","param":null,"code":400}}`
	for name, body := range map[string]string{"short": `{"error":{"message":"no","type":"x","param":null,"code":400}}`, "long": own} {
		a := s.Post(stack.ChatPath, stack.Chat(false, 3, `"error_status":404,"error_body":`+strconv.Quote(body)))
		if a.StatusCode != http.StatusNotFound || string(a.Bytes) != body {
			t.Errorf("%s: got %d, %d bytes: %.200s", name, a.StatusCode, len(a.Bytes), a.Bytes)
		}
	}
	if got := s.Metric("tollgate_unmetered_bytes_total"); got != 0 {
		t.Errorf("%v bytes were not metered", got)
	}
}
