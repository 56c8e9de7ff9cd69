package faults_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// A log that cannot be written stops nothing, and what it loses is counted.
func TestAFullDiskUnderTheLogIsCountedAndStopsNothing(t *testing.T) {
	s := stack.Start(t, stack.Options{NoStart: true})
	disk := smallDisk(t, "1m")
	if err := os.Symlink(disk, s.Path("logs")); err != nil {
		t.Fatal(err)
	}
	s.Tollgate.Start()
	s.Envoy.Start()
	s.Ready()
	fill(t, filepath.Join(disk, "filler"))
	before := s.Metric("tollgate_log_lines_lost_total", "child", "tollgate")
	const requests = 40
	for range requests {
		if a := s.Post(stack.ChatPath, stack.Chat(false, 1, "")); a.StatusCode != http.StatusOK {
			t.Fatalf("a request: %d %s", a.StatusCode, a.Bytes)
		}
	}
	stack.Eventually(t, 10*time.Second, "the lost lines to be counted", func() bool {
		return s.Metric("tollgate_log_lines_lost_total", "child", "tollgate") >= before+requests/2 // the last page of the file still has room
	})
	if n := len(s.Records()); n != requests {
		t.Errorf("the ledger has %d records, want %d", n, requests)
	}
}

// One client that asks for what is not there writes a few lines a second, however
// fast it is, and is counted whole.
func TestOneClientCannotFillTheLog(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	const requests = 1500
	begun := time.Now()
	for range requests {
		resp, err := s.HTTP1.Get(s.URL + "/nothing/here")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
	stack.Eventually(t, 10*time.Second, "all requests to be counted", func() bool {
		return s.Metric("http_requests_total", "status_code", "404") >= requests
	})
	lines, summed := 0, 0
	stack.Eventually(t, 10*time.Second, "all requests to be in a line", func() bool {
		lines, summed = logged(t, s.Path("logs/gateway.log"))
		return lines+summed >= requests
	})
	// Five lines of their own in each second that the flood lasted, and the next.
	if most := 5 * (int(time.Since(begun).Seconds()) + 2); lines > most || lines+summed != requests {
		t.Errorf("%d lines of their own (at most %d), %d summed, want %d in all", lines, most, summed, requests)
	}
}

// logged counts the requests of a log that were 404: with a line of their own, and
// summed.
func logged(t *testing.T, path string) (own, summed int) {
	t.Helper()
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(log) {
		var l struct {
			Message  string `json:"@message"`
			Status   json.RawMessage
			Requests int
		}
		if json.Unmarshal(line, &l) != nil {
			continue // the last one is being written
		}
		switch {
		case l.Message == "more refused requests":
			summed += l.Requests
		case l.Message == "request" && string(l.Status) == "404":
			own++
		}
	}
	return own, summed
}
