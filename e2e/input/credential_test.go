// Package input_test proves through the real Envoy what becomes of input that
// is wrong: the table of errors, and that nothing of it reaches the engine.
package input_test

import (
	"net/http"
	"strings"
	"testing"

	"tollgate/e2e/stack"
)

func TestMain(m *testing.M) {
	m.Run()
	stack.Clean()
}

const (
	disabledKey = "sk-test-off-0123456789abcdef"
	expiredKey  = "sk-test-old-0123456789abcdef"
	futureKey   = "sk-test-new-0123456789abcdef"
	defaultKey  = "sk-default-key-change-me"

	manyKeys = `[
  {"key": "` + stack.Key + `", "id": "ann", "user": "ann"},
  {"key": "` + stack.AdminKey + `", "id": "root", "user": "admin"},
  {"key": "` + disabledKey + `", "id": "off", "user": "off", "enabled": false},
  {"key": "` + expiredKey + `", "id": "old", "user": "old", "expires_at": "2020-01-01T00:00:00Z"},
  {"key": "` + futureKey + `", "id": "new", "user": "new", "not_before": "2100-01-01T00:00:00Z"},
  {"key": "` + defaultKey + `", "id": "default", "user": "default"}
]`
)

var (
	invalidKey   = stack.Problem{Status: 401, Type: "invalid_request_error", Code: "invalid_api_key"}
	malformed    = stack.Problem{Status: 400, Type: "invalid_request_error", Code: "invalid_request"}
	noPermission = stack.Problem{Status: 403, Type: "invalid_request_error", Code: "insufficient_permissions"}
)

const hello = `{"model":"tiny","max_tokens":3,"messages":[{"role":"user","content":"hi"}]}`

// request is an HTTP/1 request with exactly these header lines.
func request(method, path, body string, lines ...string) string {
	var b strings.Builder
	b.WriteString(method + " " + path + " HTTP/1.1\r\n")
	host := false
	for _, l := range lines {
		host = host || strings.HasPrefix(strings.ToLower(l), "host:")
		b.WriteString(l + "\r\n")
	}
	if !host {
		b.WriteString("Host: 127.0.0.1\r\n")
	}
	if body != "" {
		b.WriteString("Content-Type: application/json\r\nContent-Length: " + itoa(len(body)) + "\r\n")
	}
	b.WriteString("Connection: close\r\n\r\n" + body)
	return b.String()
}

func TestOneCredentialFromOneSource(t *testing.T) {
	s := stack.Start(t, stack.Options{Keys: manyKeys})
	const good = "Authorization: Bearer " + stack.Key
	for name, c := range map[string]struct {
		lines []string
		want  stack.Problem // zero: passes
	}{
		"bearer":                     {[]string{good}, stack.Problem{}},
		"bare":                       {[]string{"Authorization: " + stack.Key}, stack.Problem{}},
		"lower-case scheme":          {[]string{"authorization: bearer " + stack.Key}, stack.Problem{}},
		"x-api-key alone":            {[]string{"x-api-key: " + stack.Key}, stack.Problem{}},
		"missing":                    {nil, invalidKey},
		"empty":                      {[]string{"Authorization:"}, invalidKey},
		"unknown":                    {[]string{"Authorization: Bearer sk-nobody-0123456789abcdef"}, invalidKey},
		"disabled":                   {[]string{"Authorization: Bearer " + disabledKey}, invalidKey},
		"expired":                    {[]string{"Authorization: Bearer " + expiredKey}, invalidKey},
		"not yet valid":              {[]string{"Authorization: Bearer " + futureKey}, invalidKey},
		"unknown in x-api-key":       {[]string{"x-api-key: sk-nobody-0123456789abcdef"}, invalidKey},
		"two sources, one secret":    {[]string{good, "x-api-key: " + stack.Key}, stack.Problem{}}, // Claude Code
		"x-api-key empty":            {[]string{good, "x-api-key:"}, stack.Problem{}},              // older Anthropic SDKs
		"authorization empty":        {[]string{"Authorization: Bearer", "x-api-key: " + stack.Key}, stack.Problem{}},
		"two sources, one bad":       {[]string{good, "x-api-key: nonsense"}, malformed},
		"two sources, two good ones": {[]string{good, "x-api-key: " + stack.AdminKey}, malformed},
		"two equal values":           {[]string{good, good}, malformed},
		"two values, good first":     {[]string{good, "Authorization: Bearer sk-other-0123456789"}, malformed},
		"two values, good last":      {[]string{"Authorization: Bearer sk-other-0123456789", good}, malformed},
		"two of x-api-key":           {[]string{"x-api-key: " + stack.Key, "x-api-key: " + stack.Key}, malformed},
		"comma":                      {[]string{good + ",Bearer x"}, malformed},
		"comma in x-api-key":         {[]string{"x-api-key: " + stack.Key + "," + stack.Key}, malformed},
		"space inside":               {[]string{good + " x"}, malformed},
		"another scheme":             {[]string{"Authorization: Basic " + stack.Key}, malformed},
		"scheme twice":               {[]string{"Authorization: Bearer Bearer " + stack.Key}, malformed},
		"quote":                      {[]string{`Authorization: Bearer "` + stack.Key + `"`}, malformed},
		"byte above ASCII":           {[]string{good + "\xff"}, malformed},
		"tab inside":                 {[]string{good + "\tx"}, malformed},
		"key in a cookie only":       {[]string{"Cookie: Authorization=" + stack.Key}, invalidKey},
		"key as proxy-authorization": {[]string{"Proxy-Authorization: Bearer " + stack.Key}, invalidKey},
		"twin with an underscore":    {[]string{"x_api_key: " + stack.Key}, invalidKey},
		"a header of Codex":          {[]string{good, "session_id: 1"}, stack.Problem{}},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.Raw(request("POST", stack.ChatPath, hello, c.lines...))
			if c.want == (stack.Problem{}) {
				if a.Response == nil || a.StatusCode != http.StatusOK {
					t.Errorf("got %v %s, want it to pass", a.Response, a.Bytes)
				}
				return
			}
			stack.WantProblem(t, a, c.want)
		})
	}
	if got := s.Sim.Stats().Requests; got != 8 {
		t.Errorf("the engine saw %d requests, want the 8 good ones", got)
	}
	first := s.Raw(request("POST", stack.ChatPath, hello, "Authorization: Bearer sk-somebody-0123456789abcdef"))
	for _, key := range []string{"sk-nobody-0123456789abcdef", disabledKey, expiredKey, futureKey} {
		a := s.Raw(request("POST", stack.ChatPath, hello, "Authorization: Bearer "+key))
		if string(a.Bytes) != string(first.Bytes) {
			t.Errorf("the bodies tell one bad key from another: %s and %s", first.Bytes, a.Bytes)
		}
	}
	if a := s.Raw(request("POST", stack.ChatPath+"?api_key="+stack.Key, hello)); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a key in the query: got %d, want 401", a.StatusCode)
	}
}

// firstKeys is what a missing key file is written with.
const firstKeys = `[{"key": "` + defaultKey + `", "id": "default", "user": "default"}, {"key": "` + stack.AdminKey + `", "id": "root", "user": "admin"}]`

func TestTheDefaultKeyIsHonouredLocallyOnly(t *testing.T) {
	s := stack.Start(t, stack.Options{Keys: firstKeys})
	_, port, _ := strings.Cut(s.Addr(), ":")
	for name, c := range map[string]struct {
		lines []string
		want  int
	}{
		"local":               {nil, 200},
		"localhost":           {[]string{"Host: localhost:" + port}, 200},
		"IPv6 loopback host":  {[]string{"Host: [::1]:" + port}, 200},
		"page of this host":   {[]string{"Origin: http://localhost:3000", "Sec-Fetch-Site: same-site"}, 200},
		"forwarded":           {[]string{"X-Forwarded-For: 10.0.0.1"}, 401},
		"forwarded from here": {[]string{"X-Forwarded-For: 127.0.0.1"}, 401},
		"forwarded proto":     {[]string{"X-Forwarded-Proto: https"}, 401},
		"forwarded host":      {[]string{"X-Forwarded-Host: localhost"}, 401},
		"forwarded anything":  {[]string{"X-Forwarded-Something: 1"}, 401},
		"RFC 7239":            {[]string{"Forwarded: for=127.0.0.1"}, 401},
		"via":                 {[]string{"Via: 1.1 cache"}, 401},
		"nginx's address":     {[]string{"X-Real-IP: 127.0.0.1"}, 401},
		"Cloudflare's":        {[]string{"CF-Connecting-IP: 127.0.0.1"}, 401},
		"Akamai's":            {[]string{"True-Client-IP: 127.0.0.1"}, 401},
		"cross-site page":     {[]string{"Sec-Fetch-Site: cross-site"}, 401},
		"page of another":     {[]string{"Origin: https://evil.example"}, 401},
		"opaque origin":       {[]string{"Origin: null"}, 401},
		"rebound name":        {[]string{"Host: evil.example"}, 401},
		"name that looks so":  {[]string{"Host: localhost.evil.example"}, 401},
		"another address":     {[]string{"Host: 192.168.1.5:" + port}, 401},
		"a forwarder's port":  {[]string{"Host: localhost:9"}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.Raw(request("POST", stack.ChatPath, hello, append(c.lines, "Authorization: Bearer "+defaultKey)...))
			if a.Response == nil || a.StatusCode != c.want {
				t.Errorf("got %v %s, want %d", a.Response, a.Bytes, c.want)
			}
			if c.want == 401 {
				stack.WantProblem(t, a, invalidKey)
				if !strings.Contains(string(a.Bytes), "default key") {
					t.Errorf("the refusal does not say where the default key works: %s", a.Bytes)
				}
			}
		})
	}
	lines := request("POST", stack.ChatPath, hello, "Authorization: Bearer "+defaultKey)
	for name, raw := range map[string]string{
		"absolute URI": strings.Replace(lines, " "+stack.ChatPath, " http://"+s.Addr()+stack.ChatPath, 1),
		"HTTP/1.0":     strings.Replace(lines, "HTTP/1.1", "HTTP/1.0", 1),
	} {
		if a := s.Raw(raw); a.Response == nil || a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: got %v, want 401", name, a.Response)
		}
	}
	if a := s.Do(s.HTTP2, "POST", stack.ChatPath, hello, "Authorization", "Bearer "+defaultKey); a.StatusCode != http.StatusOK {
		t.Errorf("HTTP/2: got %d %s", a.StatusCode, a.Bytes)
	}
	if a := s.Admin("GET", "/health", ""); a.JSON()["default_key"] != true {
		t.Errorf("health does not warn of the default key: %s", a.Bytes)
	}
	if code, _, errs := s.Command("keys", "add", "--user", "ann"); code != 0 {
		t.Fatalf("keys add: %s", errs)
	}
	if a := s.Raw(lines); a.Response == nil || a.StatusCode != http.StatusUnauthorized {
		t.Errorf("beside a key of somebody's own: got %v, want 401", a.Response)
	}
	if a := s.Admin("GET", "/health", ""); a.JSON()["default_key"] != false {
		t.Errorf("health still warns of the default key: %s", a.Bytes)
	}
}
