package operator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/audit"
	"tollgate/internal/sqlitestore"
)

// load sends requests of a key at a steady rate until it is stopped.
type load struct {
	sent, failed atomic.Int64
	first        atomic.Pointer[string] // what was wrong first
	cancel       context.CancelFunc
	running      sync.WaitGroup
}

func startLoad(t *testing.T, s *stack.Stack, perSecond int) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel}
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	l.running.Go(func() {
		defer tick.Stop()
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-tick.C:
				l.running.Go(func() { l.one(s) })
			}
		}
	})
	return l
}

func (l *load) one(s *stack.Stack) {
	req, err := http.NewRequest(http.MethodPost, s.URL+stack.ChatPath, bytes.NewReader([]byte(stack.Chat(true, 4, ""))))
	if err == nil {
		req.Header.Set("Authorization", "Bearer "+stack.Key)
		req.Header.Set("Content-Type", "application/json")
		var resp *http.Response
		if resp, err = s.HTTP1.Do(req); err == nil {
			var body bytes.Buffer
			_, err = body.ReadFrom(resp.Body)
			_ = resp.Body.Close()
			if err == nil && (resp.StatusCode != http.StatusOK || !bytes.Contains(body.Bytes(), []byte("[DONE]"))) {
				err = fmt.Errorf("%d %s", resp.StatusCode, body.Bytes())
			}
		}
	}
	l.sent.Add(1)
	if err != nil {
		l.failed.Add(1)
		said := err.Error()
		l.first.CompareAndSwap(nil, &said)
	}
}

// stop waits for what was sent.
func (l *load) stop() {
	l.cancel()
	l.running.Wait()
}

// Edits of keys, the busiest one among them, cost no request. Each is on record, and
// one byte of the record that was altered is found.
func TestKeysAreEditedUnderLoad(t *testing.T) {
	edits, perSecond := 100, 30
	if long() {
		edits, perSecond = 1000, 200
	}
	s := stack.Start(t, stack.Options{})
	l := startLoad(t, s, perSecond)
	defer l.stop()
	begin := time.Now()
	pace := time.NewTicker(time.Second / 50)
	defer pace.Stop()
	for i := range edits {
		<-pace.C
		id := []string{"ann", "root"}[i%2]
		body := fmt.Sprintf(`{"note":"edit %06d","limits":{"concurrent":%d}}`, i, 1000+i)
		if a := s.Admin("PATCH", "/admin/keys/"+id, body); a.StatusCode != http.StatusOK {
			t.Fatalf("edit %d: %d %s", i, a.StatusCode, a.Bytes)
		}
	}
	took := time.Since(begin)
	l.stop()
	if failed := l.failed.Load(); failed > 0 {
		t.Errorf("%d of %d requests failed, the first with %s", failed, l.sent.Load(), *l.first.Load())
	}
	changes := 0
	for before := ""; ; {
		page := entries(t, s, "limit=1000"+before)
		for _, e := range page {
			if e.Action == "key.change" {
				changes++
			}
		}
		if len(page) < 1000 {
			break
		}
		before = fmt.Sprint("&before=", page[len(page)-1].Seq)
	}
	if changes != edits {
		t.Errorf("%d edits, %d on record", edits, changes)
	}
	t.Logf("%d edits in %v under %d requests: %d failed, %d on record", edits, took.Round(time.Millisecond), l.sent.Load(), l.failed.Load(), changes)
	alteredByteIsFound(t, s, fmt.Sprintf("edit %06d", edits/2))
}

// alteredByteIsFound alters a byte of an entry in a copy of the ledger.
func alteredByteIsFound(t *testing.T, s *stack.Stack, text string) {
	t.Helper()
	copied := s.Path("copy.db")
	if code, out, errs := s.Command("ledger", "backup", copied); code != 0 {
		t.Fatalf("backup: exit %d %s%s", code, out, errs)
	}
	verify := func() error {
		r, err := sqlitestore.OpenReadOnly(t.Context(), copied)
		if err != nil {
			return err
		}
		_, err = r.VerifyAudit(t.Context())
		return errors.Join(err, r.Close())
	}
	if err := verify(); err != nil {
		t.Fatal("before a byte was altered: ", err)
	}
	file, err := os.ReadFile(copied)
	at := bytes.Index(file, []byte(text))
	if err != nil || at < 0 {
		t.Fatal("the entry is not in the file", err)
	}
	file[at+len(text)-1] ^= 1
	if err := os.WriteFile(copied, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := verify(); !errors.Is(err, audit.ErrBroken) {
		t.Errorf("an altered byte was not found: %v", err)
	}
}
