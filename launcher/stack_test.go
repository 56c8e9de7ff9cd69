package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/internal/config"
	"tollgate/internal/openai"
	"tollgate/internal/supervisor"
	"tollgate/internal/unixsock"
)

func TestUpStartsDrainsAndLeavesNothing(t *testing.T) {
	s := newStack(t, "")
	s.start()
	s.ready()
	var shown strings.Builder
	for range 5 {
		line, _ := s.stdout.ReadString('\n')
		shown.WriteString(line)
	}
	for _, want := range []string{"sk-default-key-change-me", "curl -N http://" + s.edge + "/v1/chat/completions", "see  http://" + s.edge + "/console/\n", `"model": "simulated"`, `"stream": true`} {
		if !strings.Contains(shown.String(), want) {
			t.Errorf("what a person needs: no %q in\n%s", want, shown.String())
		}
	}
	keys, err := os.ReadFile(filepath.Join(s.dir, "config/api_keys.json"))
	if err != nil || !bytes.Contains(keys, []byte("key_sha256")) {
		t.Errorf("key file: %v", err)
	}
	pids := s.pids()

	resp, err := http.Get("http://" + s.edge + "/stream?for=1500ms")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body := bufio.NewReader(resp.Body)
	if line, _ := body.ReadString('\n'); line != "begin\n" {
		t.Fatalf("stream: got %q", line)
	}
	s.signal(syscall.SIGINT)
	rest, err := io.ReadAll(body)
	if string(rest) != "end\n" || err != nil {
		t.Errorf("the live stream was cut: got %q, %v", rest, err)
	}
	if got := s.wait(20 * time.Second); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
	s.nothingLeft(pids, true)
	for _, name := range []string{"gateway.log", "envoy.log", "vllm.log"} {
		if _, err := os.Stat(filepath.Join(s.dir, "logs", name)); err != nil {
			t.Error(err)
		}
	}
	if strings.Contains(s.stderr.String(), "sk-") {
		t.Errorf("a key is in the log:\n%s", s.stderr)
	}
}

func TestASecondSignalStopsAtOnce(t *testing.T) {
	s := newStack(t, "drain_timeout: 10m\n")
	s.start()
	s.ready()
	pids := s.pids()
	resp, err := http.Get("http://" + s.edge + "/stream?for=1h")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = bufio.NewReader(resp.Body).ReadString('\n')
	s.signal(syscall.SIGINT)
	select {
	case <-s.exited:
		t.Fatal("the first signal did not wait for the stream")
	case <-time.After(time.Second):
	}
	s.signal(syscall.SIGINT)
	if got := s.wait(10 * time.Second); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
	s.nothingLeft(pids, true)
}

func TestCrashesAndHangsOfEachChildAreMended(t *testing.T) {
	s := newStack(t, "")
	s.start()
	s.ready()
	_ = s.pids()
	for _, c := range []struct {
		child string
		sig   syscall.Signal
	}{{"vllm", syscall.SIGKILL}, {"envoy", syscall.SIGKILL}, {"tollgate", syscall.SIGSTOP}, {"envoy", syscall.SIGSTOP}} {
		before := s.state()[c.child]
		began := time.Now()
		_ = syscall.Kill(before.PID, c.sig)
		after := s.eventually(c.child, func(st supervisor.Status) bool {
			return st.State == supervisor.Ready && st.Restarts == before.Restarts+1
		})
		if after.PID == before.PID || after.LastExit == nil {
			t.Errorf("%s after signal %v: %+v", c.child, c.sig, after)
		}
		if c.sig == syscall.SIGSTOP && after.LastExit.At.Sub(began) > 6*time.Second {
			t.Errorf("%s: killed %s after it hung", c.child, after.LastExit.At.Sub(began))
		}
	}
	if !strings.Contains(s.stderr.String(), "child crashed") {
		t.Error("the crash is not reported")
	}
	s.signal(syscall.SIGTERM)
	if got := s.wait(20 * time.Second); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
}

func TestALauncherThatIsKilledLeavesNoChild(t *testing.T) {
	s := newStack(t, "")
	s.start()
	s.ready()
	pids := s.pids()
	s.signal(syscall.SIGKILL)
	s.wait(10 * time.Second)
	s.nothingLeft(pids, false)
	again := exec.Command(s.cmd.Path, "up", "--config", "config.yaml")
	again.Dir, again.Env = s.dir, s.cmd.Env
	second := &stack{t: t, dir: s.dir, edge: s.edge, cmd: again, stderr: &safeBuffer{}, exited: make(chan struct{})}
	out, err := again.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	second.stdout, again.Stderr = bufio.NewReader(out), second.stderr
	second.start()
	second.ready()
	third := exec.Command(s.cmd.Path, "up", "--config", "config.yaml")
	third.Dir, third.Env = s.dir, s.cmd.Env
	if text, _ := third.CombinedOutput(); third.ProcessState.ExitCode() != 1 || !strings.Contains(string(text), "already running") {
		t.Errorf("beside a running one: exit %d, %s", third.ProcessState.ExitCode(), text)
	}
	second.signal(syscall.SIGINT)
	if got := second.wait(20 * time.Second); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
}

func TestATakenPortIsSaidBeforeAnythingStarts(t *testing.T) {
	s := newStack(t, "")
	l, err := net.Listen("tcp", s.edge)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s.start()
	if got := s.wait(10 * time.Second); got != 1 {
		t.Errorf("exit code: got %d, want 1", got)
	}
	if got := s.stderr.String(); !strings.Contains(got, "listen "+s.edge+" cannot be listened on") || strings.Contains(got, "child started") {
		t.Errorf("stderr: %s", got)
	}
}

func TestAChildThatIsGivenUpEndsAllWithItsLastLines(t *testing.T) {
	s := newStack(t, "  args: [--no-such-flag]\n")
	s.start()
	if got := s.wait(20 * time.Second); got != 2 {
		t.Errorf("exit code: got %d, want 2", got)
	}
	if got := s.stderr.String(); !strings.Contains(got, "no-such-flag") {
		t.Errorf("the child's words are not shown: %s", got)
	}
	s.nothingLeft(nil, true)
}

func TestAdaptersSurviveACrashOfTheEngine(t *testing.T) {
	s := newStack(t, "  lora: {enabled: true, dir: adapters, runtime: {enabled: true}}\n")
	dir := filepath.Join(s.dir, "adapters", "mine")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "adapter_config.json"), []byte(`{"peft_type":"LORA","r":8}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.ready()
	socket, _ := filepath.Glob(filepath.Join(s.dir, "state/*/run/launcher.sock"))
	resp, err := unixsock.HTTPClient(socket[0], 10*time.Second).Post(
		"http://launcher/load-lora-adapter", "application/json", strings.NewReader(`{"lora_name":"x","lora_path":"mine"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		t.Fatalf("load: %d %s", resp.StatusCode, body)
	}
	before := s.state()["vllm"]
	_ = syscall.Kill(before.PID, syscall.SIGKILL)
	after := s.eventually("vllm", func(st supervisor.Status) bool { return st.State == supervisor.Ready && st.PID != before.PID })
	if after.LastExit.Signal != "killed" {
		t.Errorf("exit: got %v", after.LastExit)
	}
	cfg, err := config.Load(filepath.Join(s.dir, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	models, err := engineClient(engineAddress(cfg), &config.VLLM{APIKeyFile: s.engineKeyPath()}).Models(t.Context())
	if err != nil || !slices.ContainsFunc(models, func(m openai.Model) bool { return m.ID == "x" }) {
		t.Errorf("models after the crash: got %v, %v, want x among them", models, err)
	}
	s.signal(syscall.SIGTERM)
	if got := s.wait(20 * time.Second); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
}

func TestAnEngineThatCountsNothingWhileItRunsIsHung(t *testing.T) {
	running, tokens, up := 0, 0, true
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !up {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "vllm:num_requests_running{engine=\"0\"} %d\nvllm:prompt_tokens_total{engine=\"0\"} 7\nvllm:generation_tokens_total{engine=\"0\"} %d\n", running, tokens)
	}))
	defer srv.Close()
	s := &stallCheck{engine: engineClient(strings.TrimPrefix(srv.URL, "http://"), &config.VLLM{}), timeout: time.Minute}
	for _, step := range []struct {
		name            string
		running, tokens int
		up, hung        bool
	}{
		{"idle", 0, 0, true, false},
		{"moving", 3, 10, true, false},
		{"still, not for long", 3, 10, true, false},
		{"still for a minute", 3, 10, true, true},
		{"moving again", 3, 11, true, false},
		{"idle for long", 0, 11, true, false},
		{"silent for a minute", 0, 11, false, true},
	} {
		running, tokens, up = step.running, step.tokens, step.up
		if step.hung || step.name == "idle for long" {
			s.moved = s.moved.Add(-time.Minute)
		}
		if err := s.check(t.Context()); (err != nil) != step.hung {
			t.Errorf("%s: got %v", step.name, err)
		}
	}
}

func TestWrongUsageAndHelp(t *testing.T) {
	for args, want := range map[string]int{
		"--help": 0, "up --help": 0, "vllm --help": 0, "simulate --help": 0, "": 2, "nonsense": 2, "up --nonsense": 2, "up extra": 2,
		"simulate --config x.yaml": 2, "--config x.yaml simulate": 2, "up -c /dev/null/x": 2, "vllm -c /no/such/file": 2,
	} {
		var out, errOut bytes.Buffer
		got := run(strings.Fields(args), process{getenv: func(string) string { return "" }, stdin: strings.NewReader(""), stdout: &out, stderr: &errOut})
		if got != want {
			t.Errorf("%q: exit code: got %d, want %d; %s%s", args, got, want, &out, &errOut)
		}
		if want == 0 && out.Len() < 300 || want == 2 && errOut.Len() == 0 {
			t.Errorf("%q: says %q and %q", args, &out, &errOut)
		}
	}
}
