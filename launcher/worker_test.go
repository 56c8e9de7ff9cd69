package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/internal/supervisor"
)

// apart is an engine whose worker has a session of its own, no environment that
// tells where it came from, ignores SIGTERM, and holds the port.
const apart = `setsid env -i PATH="$PATH" sh -c 'trap "" TERM; echo $$ >worker.pid; "$0" simulate --listen "$1" --model "$2" & echo $! >simulator.pid; while :; do sleep 1; done' "%LAUNCHER%" "$listen" "$model" &
while :; do sleep 1; done`

func TestAWorkerThatHoldsThePortDoesNotKeepTheEngineDown(t *testing.T) {
	s := newStack(t, scripted)
	s.engineScript(s.apart())
	s.start()
	s.ready()
	before := s.state()
	first := []int{before["vllm"].PID, s.pid("worker.pid"), s.pid("simulator.pid")}
	for _, name := range []string{"worker.pid", "simulator.pid"} {
		_ = os.Remove(filepath.Join(s.dir, name))
	}
	_ = syscall.Kill(before["vllm"].PID, syscall.SIGKILL)
	after := s.eventually("vllm", func(st supervisor.Status) bool { return st.State == supervisor.Ready && st.PID != before["vllm"].PID })
	if after.By != (supervisor.Restarts{Crash: 1}) {
		t.Errorf("restarts: got %+v, want one", after.By)
	}
	s.nothingLeft(first, false)
	for _, name := range []string{"tollgate", "envoy"} {
		if got := s.state()[name]; got.PID != before[name].PID {
			t.Errorf("%s: was %+v, is %+v", name, before[name], got)
		}
	}
	second := append(s.pids(), s.pid("worker.pid"), s.pid("simulator.pid"))
	s.signal(syscall.SIGTERM)
	if got := s.wait(30 * time.Second); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
	s.nothingLeft(second, true)
}

func TestAKilledLauncherLeavesNoWorkerApart(t *testing.T) {
	s := newStack(t, scripted)
	s.engineScript(s.apart())
	s.start()
	s.ready()
	pids := append(s.pids(), s.pid("worker.pid"), s.pid("simulator.pid"))
	s.signal(syscall.SIGKILL)
	s.wait(10 * time.Second)
	s.nothingLeft(pids, false)
}

func TestAnEngineThatWasReadyIsNeverGivenUp(t *testing.T) {
	s := newStack(t, scripted+"  restart: {backoff_min: 10ms, backoff_max: 50ms, give_up_after: 2}\n")
	s.engineScript(`[ -e broken ] && echo no device >&2 && exit 1
serve`)
	s.start()
	s.ready()
	before := s.state()
	broken := filepath.Join(s.dir, "broken")
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(before["vllm"].PID, syscall.SIGKILL)
	s.eventually("vllm", func(st supervisor.Status) bool { return st.By.Crash >= 5 })
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	s.eventually("vllm", func(st supervisor.Status) bool { return st.State == supervisor.Ready })
	for _, name := range []string{"tollgate", "envoy"} {
		if got := s.state()[name]; got.PID != before[name].PID || got.State != supervisor.Ready {
			t.Errorf("%s: was %+v, is %+v", name, before[name], got)
		}
	}
	s.signal(syscall.SIGTERM)
	if got := s.wait(30 * time.Second); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
}

func (s *stack) apart() string { return strings.ReplaceAll(apart, "%LAUNCHER%", s.cmd.Path) }

func TestTheQuestionForFlagsLeavesNothingBehind(t *testing.T) {
	s := newStack(t, scripted)
	s.engineScript("serve")
	script := filepath.Join(s.dir, "bin", "vllm")
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	asked := `[ "$2" = --help=all ] && { setsid env -i PATH="$PATH" sh -c 'echo $$ >asked.pid; while :; do sleep 1; done' >/dev/null 2>&1 & sleep 1; echo "  --model"; exit; }` + "\n"
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"+asked+string(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.ready()
	s.nothingLeft([]int{s.pid("asked.pid")}, false)
	s.signal(syscall.SIGTERM)
	if got := s.wait(30 * time.Second); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
}
