package admin_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollgate/internal/admin"
)

// host is a launcher that answers the same to everything.
type host struct {
	name, body string
	status     int
	err        error
	asked      []string
}

func (h *host) Name() string { return h.name }

func (h *host) Call(_ context.Context, method, path string, body []byte) (int, []byte, error) {
	h.asked = append(h.asked, method+" "+path+" "+string(body))
	return h.status, []byte(h.body), h.err
}

func TestAnAdapterIsLoadedEverywhereAndTheWorstHostSpeaks(t *testing.T) {
	good := &host{name: "a", status: http.StatusOK, body: `{"message":"loaded"}`}
	bad := &host{name: "b", status: http.StatusBadRequest, body: `{"error":{"message":"no such folder"}}`}
	away := &host{name: "c", err: errors.New("connection refused to 10.0.0.3")}
	r := newRig(t, good, bad, away)
	a := r.do(http.MethodPost, "/admin/load-lora-adapter", `{"lora_name":"x"}`)
	want := `{"adapter":"x","hosts":[{"host":"a","ok":true,"message":"loaded"},{"host":"b","ok":false,"message":"no such folder"},{"host":"c","ok":false,"message":"the launcher does not answer"}]}`
	if a.status != http.StatusServiceUnavailable || strings.TrimSpace(a.body) != want {
		t.Errorf("%d %s", a.status, a.body)
	}
	if len(good.asked) != 1 || good.asked[0] != `POST /load-lora-adapter {"lora_name":"x"}` {
		t.Errorf("asked %q", good.asked)
	}
}

func TestLogsAreLookedAfterWithoutALauncher(t *testing.T) {
	away := &host{name: "local", err: errors.New("no launcher")}
	for _, hosts := range [][]admin.Host{nil, {away}} {
		r := newRig(t, hosts...)
		dir := filepath.Join(filepath.Dir(r.keys.Path()), "logs")
		if err := os.MkdirAll(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"gateway.log", "gateway-20200101T000000.000.log.gz"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("x\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if a := r.do(http.MethodGet, "/admin/log-stats", ""); a.status != http.StatusOK || !strings.Contains(a.body, `"files":2`) {
			t.Errorf("stats: %d %s", a.status, a.body)
		}
		a := r.do(http.MethodPost, "/admin/clean-logs?days=7", "")
		if a.status != http.StatusOK || !strings.Contains(a.body, `"removed":["gateway-20200101T000000.000.log.gz"]`) {
			t.Errorf("clean: %d %s", a.status, a.body)
		}
	}
}

func TestALauncherSpeaksForTheLogs(t *testing.T) {
	here := &host{name: "local", status: http.StatusOK, body: `{"total_bytes":7}`}
	r := newRig(t, here)
	if a := r.do(http.MethodGet, "/admin/log-stats", ""); a.body != here.body {
		t.Errorf("got %s", a.body)
	}
	r.do(http.MethodPost, "/admin/clean-logs?days=3", "")
	if len(here.asked) != 2 || here.asked[1] != "POST /clean-logs?days=3 " {
		t.Errorf("asked %q", here.asked)
	}
}

// Processes are told by each launcher, and one that is away takes nothing from the
// others. A restart is on record and goes to the launcher that is named.
func TestProcesses(t *testing.T) {
	one := &host{name: "a", status: http.StatusOK, body: `{"children":[{"name":"vllm","state":"ready"}]}`}
	away := &host{name: "b", err: errors.New("connection refused")}
	r := newRig(t, one, away)
	a := r.do(http.MethodGet, "/admin/children", "")
	want := `{"hosts":[{"host":"a","ok":true,"message":"","children":[{"name":"vllm","state":"ready"}]},{"host":"b","ok":false,"message":"the launcher does not answer","children":[]}]}`
	if a.status != http.StatusOK || strings.TrimSpace(a.body) != want {
		t.Errorf("%d %s", a.status, a.body)
	}
	one.status, one.body = http.StatusAccepted, `{"child":"vllm","message":"is being restarted"}`
	if a := r.do(http.MethodPost, "/admin/children/vllm/restart?host=a", ""); a.status != http.StatusAccepted {
		t.Errorf("restart: %d %s", a.status, a.body)
	}
	if asked := one.asked[len(one.asked)-1]; asked != "POST /restart?child=vllm " {
		t.Errorf("asked %q", asked)
	}
	if a := r.do(http.MethodGet, "/admin/audit", ""); !strings.Contains(a.body, `"child.restart"`) {
		t.Errorf("the restart is not on record: %s", a.body)
	}
	one.status, one.body = http.StatusNotFound, `{"error":{"message":"there is no child \"x\""}}`
	for path, status := range map[string]int{
		"/admin/children/x/restart": http.StatusNotFound, "/admin/children/vllm/restart?host=c": http.StatusNotFound,
		"/admin/children/vllm/restart?host=b": http.StatusServiceUnavailable, "/admin/children/vllm/restart?who=a": http.StatusBadRequest,
	} {
		if a := r.do(http.MethodPost, path, ""); a.status != status {
			t.Errorf("%s: %d %s, want %d", path, a.status, a.body, status)
		}
	}
}
