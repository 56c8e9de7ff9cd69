package doccheck_test

import (
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What docs/operations.md says of the metrics is compared with what a running
// service shows: names and types. Vectors that have seen no request are not
// there yet.
func TestMetricsAreThoseOfARunningService(t *testing.T) {
	live := scrape(t)
	documented := map[string]string{}
	for _, row := range rows(page(t, "docs/operations.md")) {
		name, _, _ := strings.Cut(strings.Trim(row[0], "`"), "{")
		if len(row) == 3 && metricName.MatchString(name) {
			documented[name] = row[1]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(live)) {
		if regexp.MustCompile(`^(go|process|promhttp)_`).MatchString(name) {
			continue
		}
		if documented[name] != live[name] {
			t.Errorf("%s is a %s, docs/operations.md says %q", name, live[name], documented[name])
		}
	}
	silent := []string{
		"http_requests_total", "http_request_duration_seconds", "http_errors_total", "token_usage_total", "tollgate_engine_load", "tollgate_model_requests_total", "tollgate_model_tokens_total", "tollgate_prefix_hit_tokens_total", "tollgate_quota_used_ratio",
		"gen_ai_client_token_usage", "gen_ai_server_request_duration_seconds", "gen_ai_server_time_to_first_token_seconds", "gen_ai_server_time_per_output_token_seconds",
		// Where there is a central ledger.
		"tollgate_central_up", "tollgate_central_shipped_rows_total", "tollgate_central_ship_seconds", "tollgate_outbox_rows", "tollgate_outbox_oldest_seconds",
		"tollgate_keys_copy_age_seconds",
		// Where Envoys on other hosts may connect.
		"tollgate_service_connections", "tollgate_service_connections_refused_total", "tollgate_service_tls_expiry_timestamp_seconds", "tollgate_service_tls_lifetime_seconds", "tollgate_service_tls_last_reload_ok",
	}
	for name := range metrics(t) {
		if _, ok := live[name]; !ok && !slices.Contains(silent, name) {
			t.Errorf("%s is in the code and not at /metrics", name)
		}
	}
}

// scrape starts the service alone and returns its metrics with their types.
func scrape(t *testing.T) map[string]string {
	t.Helper()
	dir, listen := t.TempDir(), free(t)
	text := "listen: " + free(t) + "\nmetrics_listen: " + listen + "\nvllm: {endpoints: [\"" + free(t) + "\"]}\notel: {endpoint: \"" + free(t) + "\"}\n"
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(built(t), "tollgate"), "serve", "--config", "config.yaml")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental")
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	out := map[string]string{}
	for deadline := time.After(30 * time.Second); len(out) == 0; {
		select {
		case err := <-ended:
			t.Fatalf("tollgate serve ended: %v\n%s", err, said.String())
		case <-deadline:
			_ = cmd.Process.Kill()
			t.Fatal("no metrics after 30 s")
		case <-time.After(50 * time.Millisecond):
			out = families(listen)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("tollgate serve: %v\n%s", err, said.String())
	}
	return out
}

// families are the names and types at a scrape address; none while nobody
// answers there.
func families(listen string) map[string]string {
	out := map[string]string{}
	resp, err := http.Get("http://" + listen + "/metrics")
	if err != nil {
		return out
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return out
	}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(string(body), -1) {
		out[m[1]] = m[2]
	}
	return out
}

// free is an address of this machine that nobody listens on.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
