// Package sample reads what a process has cost from /proc: CPU time by thread,
// in nanoseconds, and memory.
package sample

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// CPU is the time that each thread of a process has run, by thread id.
type CPU map[int]time.Duration

// ReadCPU reads the CPU time of all threads of a process that live now.
func ReadCPU(pid int) (CPU, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "task")
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read threads: %w", err)
	}
	out := make(CPU, len(tasks))
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, t.Name(), "schedstat")) //nolint:gosec // in /proc
		if errors.Is(err, os.ErrNotExist) {
			continue // it has ended since
		}
		if err != nil {
			return nil, fmt.Errorf("read schedstat: %w", err)
		}
		if out[tid], err = ParseSchedstat(b); err != nil {
			return nil, err
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("read threads of %d: there are none", pid)
	}
	return out, nil
}

// Since is the time that passed on all CPUs since an earlier reading. What a
// thread used that has ended in between is not in it.
func (c CPU) Since(before CPU) time.Duration {
	var sum time.Duration
	for tid, d := range c {
		sum += max(0, d-before[tid])
	}
	return sum
}

// ParseSchedstat reads the run time out of a schedstat file: its first field,
// nanoseconds.
func ParseSchedstat(b []byte) (time.Duration, error) {
	fields := bytes.Fields(b)
	if len(fields) != 3 {
		return 0, fmt.Errorf("parse schedstat: %d fields, want 3", len(fields))
	}
	ns, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil || ns < 0 {
		return 0, fmt.Errorf("parse schedstat: %q is no time", fields[0])
	}
	return time.Duration(ns), nil
}

// ReadRSS is a process's resident memory in bytes, from smaps_rollup.
func ReadRSS(pid int) (int64, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		return 0, fmt.Errorf("read smaps_rollup: %w", err)
	}
	return ParseRollup(b)
}

// ParseRollup reads Rss out of a smaps_rollup file, in bytes.
func ParseRollup(b []byte) (int64, error) {
	for line := range bytes.Lines(b) {
		rest, ok := bytes.CutPrefix(line, []byte("Rss:"))
		if !ok {
			continue
		}
		fields := bytes.Fields(rest)
		if len(fields) != 2 || string(fields[1]) != "kB" {
			return 0, fmt.Errorf("parse smaps_rollup: %q", line)
		}
		kb, err := strconv.ParseInt(string(fields[0]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse smaps_rollup: %w", err)
		}
		return kb << 10, nil
	}
	return 0, errors.New("parse smaps_rollup: there is no Rss")
}
