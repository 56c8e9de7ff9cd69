package replicas_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// fate is how one request went.
type fate struct {
	begun, ended time.Time
	code         int // 0: the connection broke
	id           string
	body         string
}

// stream asks for a stream and reads it.
func (s *site) stream(body string) (f fate) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	f.begun = time.Now()
	defer func() { f.ended = time.Now() }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.edges[0].URL+stack.ChatPath, strings.NewReader(body))
	if err != nil {
		return f
	}
	req.Header.Set("Authorization", "Bearer "+secret("ann"))
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.edges[0].HTTP1.Do(req)
	if err != nil {
		return f
	}
	defer func() { _ = resp.Body.Close() }()
	f.id, f.code = resp.Header.Get("x-request-id"), resp.StatusCode
	text, err := io.ReadAll(resp.Body)
	if f.body = string(text); err != nil || f.code == http.StatusOK && !strings.Contains(f.body, "[DONE]") {
		f.code = 0
	}
	return f
}

// TestAKilledReplicaCostsItsStreamsOnly: SIGKILL of one of three under load. What did
// not run on it goes on, and what comes later is answered by the others.
func TestAKilledReplicaCostsItsStreamsOnly(t *testing.T) {
	beside(t)
	const clients, pause = 24, 3 * time.Second
	s := startSite(t, 3, 1, calm, "concurrent: 64", keys("ann", ""))
	var (
		mu    sync.Mutex
		fates []fate
		group sync.WaitGroup
		stop  = make(chan struct{})
	)
	for range clients {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				f := s.stream(stack.Chat(true, 40, `"delay_ms":5`))
				mu.Lock()
				fates = append(fates, f)
				mu.Unlock()
			}
		})
	}
	<-time.After(pause)
	dead := s.replicas[1]
	dead.Tollgate.Kill()
	killed := time.Now()
	<-time.After(pause)
	close(stop)
	group.Wait()

	lost, late := map[string]bool{}, map[int]int{}
	var well, during, later, refused int
	for _, f := range fates {
		switch {
		case f.code == http.StatusOK:
			well++
			continue
		case f.begun.After(killed.Add(time.Second)):
			later++
			late[int(f.begun.Sub(killed)/(100*time.Millisecond))]++
		case f.code != 0 && f.begun.After(killed):
			refused++
		default:
			during++
		}

		lost[f.id] = true
	}
	t.Log(late)
	if later > 0 {
		t.Errorf("%d requests were refused later than a second after the death", later)
	}
	t.Logf("%d well, %d that ran at the death, %d refused right after it, %d later", well, during, refused, later)
	if during > clients {
		t.Errorf("%d requests were lost, only %d can have run", during, clients)
	}
	s.edges[0].HTTP1.CloseIdleConnections()
	// What it held is back.
	stack.Eventually(t, leaseLife+2*slack, "the slots of the dead replica to be back", func() bool {
		return s.replicas[0].Metric("tollgate_leases_live") == 0 && s.replicas[2].Metric("tollgate_leases_live") == 0
	})
	t.Logf("its slots were back %v after its death", time.Since(killed).Round(time.Millisecond))
	dead.Tollgate.Start()
	stack.Eventually(t, 20*time.Second, "the replica to be back", func() bool {
		resp, err := http.Get(dead.Scrape + "/healthz")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil
	})
	s.agree(lost)
}

// TestTicketsAreGoodWithoutRedis: Redis hangs under load. Any replica still claims what
// another one has issued, nothing is refused, and the ledgers are the truth.
func TestTicketsAreGoodWithoutRedis(t *testing.T) {
	beside(t)
	away := 3 * time.Second
	if long() {
		away = 30 * time.Second
	}
	s := startSite(t, 3, 1, 100*time.Millisecond, "", keys("ann", ""))
	var (
		mu    sync.Mutex
		codes = map[int]int{}
		group sync.WaitGroup
		stop  = make(chan struct{})
	)
	for range 8 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				f := s.stream(stack.Chat(true, 10, `"delay_ms":5`))
				mu.Lock()
				codes[f.code]++
				mu.Unlock()
			}
		})
	}
	<-time.After(time.Second)
	s.redis.Signal(syscall.SIGSTOP)
	<-time.After(away)
	s.redis.Signal(syscall.SIGCONT)
	<-time.After(time.Second)
	close(stop)
	group.Wait()
	t.Logf("Redis away for %v: %v", away, codes)
	if len(codes) != 1 || codes[http.StatusOK] == 0 {
		t.Errorf("statuses: %v, want 200 only", codes)
	}
	s.idle(20 * time.Second)
	s.agree(nil)
}
