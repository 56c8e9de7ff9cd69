package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/internal/supervisor"
)

// engineScript puts a program called vllm before everything: it answers the
// question for its flags, and otherwise runs the shell lines, which may call
// serve to become the simulator.
func (s *stack) engineScript(lines string) {
	s.t.Helper()
	text := fmt.Sprintf(`#!/bin/sh
[ "$2" = --help=all ] && echo usage: vllm serve --model && exit
serve() { exec %s simulate --listen "$listen" --model "$model"; }
listen=$4:$6 model=$2
%s
`, s.cmd.Path, lines)
	if err := os.WriteFile(filepath.Join(s.dir, "bin", "vllm"), []byte(text), 0o700); err != nil {
		s.t.Fatal(err)
	}
	s.cmd.Env[0] += ":/usr/bin:/bin"
}

const scripted = "  launch_mode: cli\n  model: m\n"

func TestAnEngineThatDiesAtItsStartIsGivenUpWithItsLastWords(t *testing.T) {
	for name, c := range map[string]struct {
		die, said string
		code      int
	}{
		"exit 0":   {"exit 0", "vllm crashed (exit status 0) and is given up after 2 crashes", 1},
		"exit 1":   {"exit 1", "vllm crashed (exit status 1) and is given up after 2 crashes", 1},
		"exit 2":   {"exit 2", "vllm cannot run (exit status 2)", 2}, // it says that its arguments are wrong
		"exit 137": {"exit 137", "vllm crashed (exit status 137) and is given up after 2 crashes", 1},
		"SIGKILL":  {"kill -KILL $$", "vllm crashed (signal: killed) and is given up after 2 crashes", 1},
		"SIGSEGV":  {"kill -SEGV $$", "vllm crashed (signal: segmentation fault) and is given up after 2 crashes", 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, scripted+"  restart: {backoff_min: 10ms, give_up_after: 2}\n")
			s.engineScript("echo starting $$ >&2; echo the model cannot be found >&2; " + c.die)
			s.start()
			if got := s.wait(20 * time.Second); got != c.code {
				t.Errorf("exit code: got %d, want %d", got, c.code)
			}
			got := s.stderr.String()
			for _, want := range []string{c.said, "its last lines:", "the model cannot be found"} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in %s", want, got)
				}
			}
			s.nothingLeft(nil, true)
		})
	}
}

// worker starts a process in the engine's group that nothing but SIGKILL ends.
const worker = `sh -c 'trap "" TERM; echo $$ >worker.pid; while :; do sleep 1; done' & `

// pid reads a number that a script wrote into the stack's folder.
func (s *stack) pid(file string) int {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		b, _ := os.ReadFile(filepath.Join(s.dir, file))
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			return pid
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("no number in %s", file)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func TestWorkersThatOutliveTheEngineAreKilledBeforeItIsStartedAgain(t *testing.T) {
	s := newStack(t, scripted)
	s.engineScript(`[ -e worker.pid ] && kill -0 $(cat worker.pid) && echo alive >alive
` + worker + `serve`)
	s.start()
	s.ready()
	first := s.pid("worker.pid")
	before := s.state()["vllm"]
	_ = syscall.Kill(before.PID, syscall.SIGKILL)
	after := s.eventually("vllm", func(st supervisor.Status) bool { return st.State == supervisor.Ready && st.Restarts == 1 })
	if gap := after.Since.Sub(after.LastExit.At); gap > 10*time.Second {
		t.Errorf("ready %v after the exit", gap)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "alive")); err == nil {
		t.Error("the worker of the last life was alive at the next start")
	}
	second := s.pid("worker.pid")
	s.signal(syscall.SIGTERM)
	if got := s.wait(20 * time.Second); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
	s.nothingLeft([]int{before.PID, after.PID, first, second}, true)
}

func TestAnEngineThatIgnoresSIGTERMIsKilledWithItsWorkers(t *testing.T) {
	s := newStack(t, scripted+"  shutdown_timeout: 300ms\n")
	s.engineScript(worker + `trap "" TERM; "` + s.cmd.Path + `" simulate --listen "$listen" --model "$model" & trap "" TERM
while :; do sleep 1; done`)
	s.start()
	s.ready()
	pids := append(s.pids(), s.pid("worker.pid"))
	s.signal(syscall.SIGTERM)
	if got := s.wait(20 * time.Second); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
	if !strings.Contains(s.stderr.String(), "child does not stop, killing its group") {
		t.Errorf("stderr: %s", s.stderr)
	}
	s.nothingLeft(pids, true)
}

func TestAKilledLauncherLeavesNoWorker(t *testing.T) {
	s := newStack(t, scripted)
	s.engineScript(worker + "serve")
	s.start()
	s.ready()
	pids := append(s.pids(), s.pid("worker.pid"))
	s.signal(syscall.SIGKILL)
	s.wait(10 * time.Second)
	s.nothingLeft(pids, false)
}
