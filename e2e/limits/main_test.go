// Package limits_test proves through the real Envoy what limits promise: never
// more than was allowed, nothing lost when clients leave, nothing charged to
// who was refused, and answers that clients can act upon.
//
// PROOF=1 runs the long forms and prints their figures.
package limits_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
)

func TestMain(m *testing.M) {
	m.Run()
	stack.Clean()
}

// long says that the long forms are asked for.
func long() bool { return os.Getenv("PROOF") != "" }

// scale is the size of a test: the short or the long one.
func scale(short, proof int) int {
	if long() {
		return proof
	}
	return short
}

// secret is the key whose id it is given.
func secret(id string) string { return "sk-test-" + id + "-0123456789abcdef" }

// keys is a key file of ids with further fields, and the admin.
func keys(idAndFields ...string) string {
	var b strings.Builder
	b.WriteString(`[{"key":"` + stack.AdminKey + `","id":"root","user":"admin"}`)
	for i := 0; i+1 < len(idAndFields); i += 2 {
		id, more := idAndFields[i], idAndFields[i+1]
		if more != "" {
			more = "," + more
		}
		fmt.Fprintf(&b, ",\n{\"key\":%q,\"id\":%q,\"user\":%q%s}", secret(id), id, id, more)
	}
	return b.String() + "]\n"
}

// ask posts a chat with a key and reads the answer.
func ask(s *stack.Stack, id, body string) *stack.Answer {
	return s.Do(s.HTTP1, "POST", stack.ChatPath, body, "Authorization", "Bearer "+secret(id))
}

// view is what GET /admin/limits says of a key.
func view(t *testing.T, s *stack.Stack, id string) limit.View {
	t.Helper()
	a := s.Admin("GET", "/admin/limits/"+id, "")
	var v struct {
		KeyID string     `json:"key_id"`
		Now   limit.View `json:"now"`
	}
	if err := json.Unmarshal(a.Bytes, &v); err != nil || a.StatusCode != http.StatusOK || v.KeyID != id {
		t.Fatalf("limits of %s: %d %s", id, a.StatusCode, a.Bytes)
	}
	return v.Now
}

// spent is the ledger's sum of a key.
func spent(s *stack.Stack, id string) int64 {
	sum := int64(0)
	for _, r := range s.Records() {
		if r.KeyID == id {
			sum += max(0, r.Counts.Prompt) + max(0, r.Counts.Completion)
		}
	}
	return sum
}

// ended: a record with its final name.
func ended(r ledger.Record) bool { return !r.Open() && r.Reason != ledger.Aborted }

var (
	tooFast    = stack.Problem{Status: 429, Type: "rate_limit_error", Code: "rate_limit_exceeded"}
	tooMany    = stack.Problem{Status: 429, Type: "rate_limit_error", Code: "concurrency_limit_exceeded"}
	quotaSpent = stack.Problem{Status: 429, Type: "insufficient_quota", Code: "insufficient_quota"}
	invalidKey = stack.Problem{Status: 401, Type: "invalid_request_error", Code: "invalid_api_key"}
)
