//go:build scale

package scale_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/kube"
	"tollgate/e2e/stack"
)

// prometheus is a running server.
type prometheus struct {
	t       *testing.T
	address string
}

// ask calls the API and returns the data of the answer.
func (p *prometheus) ask(path string, into any) error {
	resp, err := http.Get("http://" + p.address + "/api/v1/" + path)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Data  json.RawMessage `json:"data"`
		Error string          `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Error != "" {
		return fmt.Errorf("%s", answer.Error)
	}
	return json.Unmarshal(answer.Data, into)
}

// values are the results of a query, by the label instance.
func (p *prometheus) values(query string) map[string]string {
	p.t.Helper()
	var v struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	if err := p.ask("query?query="+url.QueryEscape(query), &v); err != nil {
		p.t.Errorf("%s: %v", query, err)
	}
	out := map[string]string{}
	for _, r := range v.Result {
		out[r.Metric["instance"]] = fmt.Sprint(r.Value[1])
	}
	return out
}

// Prometheus finds two gateways through the API server, as deploy/prometheus/kubernetes.yml
// says, scrapes both, and evaluates every rule and every panel over them.
func TestPrometheusFindsTwoGateways(t *testing.T) {
	alone(t)
	c := kube.Start(t)
	namespaces(c, "tollgate")
	engine := stack.NewEngine(t, engineOptions)
	var gateways []*stack.Stack
	for i := range 2 {
		g := stack.Start(t, stack.Options{Engine: engine.Addr})
		for range i + 2 {
			if a := g.Post(stack.ChatPath, stack.Chat(true, 5, "")); a.StatusCode != http.StatusOK {
				t.Fatalf("a stream: %d %s", a.StatusCode, a.Bytes)
			}
		}
		gateways = append(gateways, g)
		scraped(c, i, g)
	}
	p := startPrometheus(t, c)
	stack.Eventually(t, time.Minute, "two gateways to be scraped", func() bool {
		up := p.values(`up{job="tollgate"}`)
		return len(up) == 2 && !strings.Contains(fmt.Sprint(up), "0]") && len(p.values(`sum by (instance) (tollgate_requests_settled_total) >= 2`)) == 2
	})
	for i, g := range gateways {
		instance := strings.TrimPrefix(g.Scrape, "http://")
		if got := p.values(`sum by (instance) (tollgate_requests_settled_total)`)[instance]; got != strconv.Itoa(i+2) {
			t.Errorf("%s has settled %s requests, want %d", instance, got, i+2)
		}
	}
	if got := p.values(`sum(max by (engine) (tollgate_engine_up))`); got[""] != "1" {
		t.Errorf("two gateways before one engine show %s engines", got[""])
	}
	p.rules()
	p.panels()
}

// scraped puts the pod of a gateway into the API server.
func scraped(c *kube.Cluster, i int, g *stack.Stack) {
	host, port, _ := net.SplitHostPort(strings.TrimPrefix(g.Scrape, "http://"))
	name := fmt.Sprintf("tollgate-%d", i)
	c.Apply("apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", namespace: tollgate, labels: {app.kubernetes.io/name: tollgate}}\n" +
		"spec: {nodeName: node, containers: [{name: tollgate, image: tollgate, ports: [{name: metrics, containerPort: " + port + "}]}]}\n")
	c.Kubectl("", "-n", "tollgate", "patch", "pod", name, "--subresource=status", "--type=merge", "-p",
		`{"status": {"phase": "Running", "podIP": "`+host+`", "podIPs": [{"ip": "`+host+`"}], "conditions": [{"type": "Ready", "status": "True"}]}}`)
}

// startPrometheus runs the server on the configuration for Kubernetes, which it reaches by a
// file and not from inside.
func startPrometheus(t *testing.T, c *kube.Cluster) *prometheus {
	t.Helper()
	dir, program := t.TempDir(), kube.Tool(t, "prometheus")
	config := read(t, "deploy/prometheus/kubernetes.yml")
	inside := "{role: pod"
	if strings.Count(config, inside) != 1 {
		t.Fatalf("kubernetes.yml has %q not once", inside)
	}
	config = strings.Replace(config, inside, `{kubeconfig_file: "`+c.Kubeconfig+`", role: pod`, 1)
	config = strings.ReplaceAll(config, "15s", "1s")
	write(t, filepath.Join(dir, "prometheus.yml"), config)
	write(t, filepath.Join(dir, "rules.yaml"), read(t, "deploy/prometheus/rules.yaml"))
	p := &prometheus{t: t, address: net.JoinHostPort("127.0.0.1", strconv.Itoa(stack.FreePort(t)))}
	stack.NewProcess(t, "prometheus", filepath.Join(dir, "out"), func() *exec.Cmd {
		cmd := exec.Command(program, "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address="+p.address)
		cmd.Dir = dir
		return cmd
	}).Start()
	stack.Eventually(t, time.Minute, "Prometheus to be ready", func() bool {
		resp, err := http.Get("http://" + p.address + "/-/ready")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return p
}

// rules sees that every rule is evaluated without an error, and that none fires.
func (p *prometheus) rules() {
	p.t.Helper()
	type group struct {
		Rules []struct{ Name, Health, LastError, State string }
	}
	n := 0
	stack.Eventually(p.t, 30*time.Second, "every rule to be evaluated", func() bool {
		var v struct{ Groups []group }
		if err := p.ask("rules", &v); err != nil {
			return false
		}
		n = 0
		for _, g := range v.Groups {
			for _, r := range g.Rules {
				n++
				switch {
				case r.LastError != "":
					p.t.Errorf("%s: %s", r.Name, r.LastError)
				case r.State == "firing":
					p.t.Errorf("%s fires", r.Name)
				case r.Health != "ok":
					return false
				}
			}
		}
		return n > 0
	})
	p.t.Logf("%d rules are evaluated over two gateways, and none fires", n)
}

// panels sees that every query of the dashboard can be evaluated.
func (p *prometheus) panels() {
	p.t.Helper()
	type panel struct {
		Title   string
		Targets []struct{ Expr string }
		Panels  []panel
	}
	var board panel
	if err := json.Unmarshal([]byte(read(p.t, "deploy/grafana/tollgate.json")), &board); err != nil {
		p.t.Fatal(err)
	}
	fill := strings.NewReplacer("$instance", ".*", "$__rate_interval", "1m", "$__range", "1h", "$__interval", "15s")
	n, all := 0, []panel{board}
	for len(all) > 0 {
		next := all[0]
		all = append(all[1:], next.Panels...)
		for _, target := range next.Targets {
			n++
			p.values(fill.Replace(target.Expr))
		}
	}
	if n < 40 {
		p.t.Errorf("only %d queries were found", n)
	}
	p.t.Logf("%d queries of the dashboard are evaluated", n)
}
