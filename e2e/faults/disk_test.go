package faults_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// smallDisk mounts a file system of that many bytes, or skips the test.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tollgate-test", dir, "tmpfs", 0, "size="+size+",mode=700"); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill takes all the space that is left.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for size := 64 << 10; size > 0; {
		if _, err = f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
			err = nil
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestFullDisk(t *testing.T) {
	size := "3m" // the WAL alone may take 4 MiB before it is folded in: enough for a few rounds
	if proof() {
		size = "24m"
	}
	disk := smallDisk(t, size)
	s := stack.Start(t, stack.Options{Config: "ledger: {path: " + filepath.Join(disk, "ledger.db") + "}"})
	filler := filepath.Join(disk, "filler")
	for round := range times(2, 20) {
		l := startLoad(t, s, 4)
		type live struct {
			w  *wire
			id string
		}
		var paused []live
		for range 4 {
			w := dial(t, strings.TrimPrefix(s.URL, "http://"), false)
			w.send(path, stack.Key, `{"model":"tiny","stream":true,"max_tokens":8,"messages":[{"role":"user","content":"wait"}],"sim":{"pause_after":3}}`)
			w.saw(`"content":"`, 4)
			paused = append(paused, live{w: w, id: w.requestID()})
		}
		fill(t, filler)
		stack.Eventually(t, 20*time.Second, "a request to be refused for want of space", func() bool {
			a := s.Post(path, jobs[0])
			if a.StatusCode == http.StatusServiceUnavailable && (a.ErrorCode() != "service_unavailable" || a.Header.Get("retry-after") == "") {
				t.Fatalf("refused with %s and retry-after %q", a.Bytes, a.Header.Get("retry-after"))
			}
			return a.StatusCode == http.StatusServiceUnavailable
		})
		s.Sim.Release() // the live streams end without space for their records
		cut := 0
		for _, p := range paused {
			p.w.finish()
			if !strings.Contains(p.w.text(), "[DONE]") {
				cut++
			}
		}
		time.Sleep(300 * time.Millisecond)
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		back := time.Now()
		stack.Eventually(t, 5*time.Second, "service to be back without a restart", func() bool {
			a := s.Post(path, jobs[0])
			return a.StatusCode == http.StatusOK && strings.Contains(string(a.Bytes), "[DONE]")
		})
		took := time.Since(back)
		l.halt()
		stack.Eventually(t, 10*time.Second, "all leases to be back", func() bool { return s.Metric("tollgate_leases_live") == 0 })
		nameless(t, s)
		rows := rowsSince(t, s, time.Time{})
		lost(t, l.takeAcked(), rows)
		notAbove(t, s, rows)
		for _, p := range paused {
			r, ok := rows[p.id]
			if !ok || r.Counts.Completion < 3 || r.Quality != ledger.Exact {
				t.Errorf("round %d: a stream that lived through it: %v %s %s %d", round, ok, r.Reason, r.Quality, r.Counts.Completion)
			}
		}
		verify(t, s)
		t.Logf("round %d: answers by status %v, %d of %d live streams cut, back after %v, rows %s", round, l.codes, cut, len(paused), took.Round(time.Millisecond), describe(rows))
	}
}
