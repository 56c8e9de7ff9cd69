package faults_test

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/vllmsim"
)

// sleeper is a simulated engine that can be put to sleep: a process of its own.
func sleeper(t *testing.T) (addr string, pid int) {
	t.Helper()
	addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(stack.FreePort(t)))
	cmd := exec.Command(stack.Binary(t, "launcher"), "simulate", "--listen", addr, "--model", "tiny")
	// As the launcher has it: an idle connection must not be closed because its
	// engine was asleep for longer.
	cmd.Env = append(os.Environ(), "VLLM_HTTP_TIMEOUT_KEEP_ALIVE=75")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	stack.Eventually(t, 10*time.Second, "the engine to listen", func() bool {
		resp, err := http.Get("http://" + addr + "/health")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil
	})
	return addr, cmd.Process.Pid
}

// served is how many requests have reached the engine.
func served(t *testing.T, addr string) int {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/sim/stats")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var stats vllmsim.Stats
	if err := json.NewDecoder(resp.Body).Decode(&stats); err != nil {
		t.Fatal(err)
	}
	return stats.Requests
}

// asked is one request of [arrivals].
type asked struct {
	at     time.Duration // since the beginning
	status int
}

// arrivals sends so many requests, evenly spread, and returns when all are
// answered.
func arrivals(s *stack.Stack, n int, every time.Duration) []asked {
	out := make([]asked, n)
	began := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		<-time.After(time.Until(began.Add(time.Duration(i) * every)))
		wg.Go(func() {
			at := time.Since(began)
			out[i] = asked{at, s.Post("/v1/chat/completions", stack.Chat(false, 2, `"tokens":2`)).StatusCode}
		})
	}
	wg.Wait()
	return out
}

// TestAnEngineThatWasSilentIsUsedAgainAtOnce: an engine that does not answer for
// some seconds, because its host swaps or it compiles something, is not a dead
// one. Nobody who comes after it has woken up is sent away, and nothing is sent
// to it twice.
func TestAnEngineThatWasSilentIsUsedAgainAtOnce(t *testing.T) {
	for _, silent := range []time.Duration{2500 * time.Millisecond, 3500 * time.Millisecond, 6 * time.Second} {
		t.Run(silent.String(), func(t *testing.T) {
			t.Parallel()
			addr, pid := sleeper(t)
			s := stack.Start(t, stack.Options{Engine: addr})
			const every = 60 * time.Millisecond
			began := time.Now()
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			var awake atomic.Int64
			time.AfterFunc(silent, func() { awake.Store(int64(time.Since(began))); _ = syscall.Kill(pid, syscall.SIGCONT) })
			all := arrivals(s, int((silent+2*time.Second)/every), every)
			var during, after int
			for _, a := range all {
				switch {
				case a.status == http.StatusOK:
				case a.at < time.Duration(awake.Load()):
					during++
				default:
					after++
				}
			}
			t.Logf("%d requests, refused: %d during %s of silence, %d after", len(all), during, silent, after)
			if during+after > 0 {
				t.Errorf("requests were refused: %d while the engine was silent, %d after it had woken up", during, after)
			}
			if got := served(t, addr); got != len(all) {
				t.Errorf("the engine got %d requests of %d", got, len(all))
			}
		})
	}
}
