package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
)

// scripted is a process that ends when it is told to, in fake time.
type scripted struct {
	ended  chan struct{}
	result Exit
	terms  []time.Time
	obeys  bool // SIGTERM
}

func (s *scripted) pid() int              { return 1 << 30 }
func (s *scripted) done() <-chan struct{} { return s.ended }
func (s *scripted) exit() Exit            { return s.result }
func (s *scripted) kill()                 { s.end(Exit{Code: -1, Signal: "killed"}) }
func (s *scripted) terminate() {
	s.terms = append(s.terms, time.Now())
	if s.obeys {
		s.end(Exit{})
	}
}

func (s *scripted) end(e Exit) {
	select {
	case <-s.ended:
	default:
		s.result = e
		close(s.ended)
	}
}

// stage is a child whose processes are scripted: lives[i] is how long the i-th
// one lives by itself; further ones live on.
func stage(spec Spec, lives ...time.Duration) (c *Child, starts *[]time.Duration, last func() *scripted) {
	began := time.Now()
	starts = new([]time.Duration)
	var p *scripted
	spec.Name, spec.Output, spec.Log = "child", io.Discard, hclog.NewNullLogger()
	spec.Command = func() (Command, error) { return Command{}, nil }
	c = New(spec)
	c.start = func(Command, io.Writer, *Guard) (process, error) {
		*starts = append(*starts, time.Since(began))
		p = &scripted{ended: make(chan struct{})}
		if n := len(*starts); n <= len(lives) {
			mine := p
			time.AfterFunc(lives[n-1], func() { mine.end(Exit{Code: 1}) })
		}
		return p, nil
	}
	return c, starts, func() *scripted { return p }
}

func TestBackoffDoublesUpToItsMaximumAndForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, starts, _ := stage(
			Spec{
				Restart: Restart{BackoffMin: time.Second, BackoffMax: 5 * time.Second, GiveUpAfter: 10, Within: time.Minute},
				Ready:   func(context.Context) error { return errors.New("loading") },
			},
			0, 0, 0, 0, 0, 2*time.Minute, 0,
		)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		time.Sleep(10 * time.Minute)
		c.Kill()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		s := time.Second
		want := []time.Duration{0, s, 3 * s, 7 * s, 12 * s, 17 * s, 138 * s, 140 * s}
		if diff := cmp.Diff(want, *starts); diff != "" {
			t.Errorf("starts (-want +got):\n%s", diff)
		}
	})
}

func TestAChildThatWorkedIsStartedAgainAtOnceTheFirstTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := time.Second
		c, starts, _ := stage(
			Spec{Restart: Restart{BackoffMin: s, BackoffMax: 5 * s, GiveUpAfter: 10, Within: time.Minute}}, 90*s, 10*s, 90*s,
		)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		time.Sleep(10 * time.Minute)
		c.Kill()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		// 90: at once; 100: the second within a minute, doubled; 192: the first again.
		if diff := cmp.Diff([]time.Duration{0, 90 * s, 102 * s, 192 * s}, *starts); diff != "" {
			t.Errorf("starts (-want +got):\n%s", diff)
		}
	})
}

func TestItIsGivenUpAfterTooManyCrashesWithinTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, starts, _ := stage(
			Spec{Restart: Restart{BackoffMin: time.Second, BackoffMax: time.Second, GiveUpAfter: 3, Within: time.Minute}},
			0, 2*time.Minute, 0, 0, 0,
		)
		err := c.Run(t.Context())
		var gaveUp *GaveUpError
		if !errors.As(err, &gaveUp) || gaveUp.Crashes != 3 {
			t.Fatalf("got %v, want 3 crashes", err)
		}
		if len(*starts) != 4 {
			t.Errorf("starts: got %d, want 4", len(*starts))
		}
	})
}

func TestAPermanentFailureIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, starts, _ := stage(Spec{
			Restart:   Restart{BackoffMin: time.Second, BackoffMax: time.Second},
			Ready:     func(context.Context) error { return errors.New("no") },
			Permanent: func(e Exit) bool { return e.Code == 1 },
		}, time.Second)
		if err := c.Run(t.Context()); err == nil || len(*starts) != 1 {
			t.Errorf("got %v after %d starts", err, len(*starts))
		}
	})
}

func TestAChildThatIsNotReadyInTimeIsStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		c, starts, _ := stage(Spec{
			ReadyInterval: time.Second, ReadyTimeout: 10 * time.Second,
			Restart: Restart{BackoffMin: time.Second, BackoffMax: time.Second},
			Ready: func(context.Context) error {
				if tries++; tries < 15 {
					return errors.New("loading")
				}
				return nil
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		if err := c.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]time.Duration{0, 11 * time.Second}, *starts); diff != "" {
			t.Errorf("starts (-want +got):\n%s", diff)
		}
		if st := c.Status(); st.By != (Restarts{NotReady: 1}) {
			t.Errorf("status: got %+v", st)
		}
		c.Kill()
		cancel()
		<-done
	})
}

func TestAProbeWithoutADescriptorKillsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, starts, _ := stage(Spec{
			LiveInterval: 1500 * time.Millisecond, LiveTimeout: 1400 * time.Millisecond, LiveMisses: 3,
			Restart: Restart{BackoffMin: time.Second, BackoffMax: time.Second},
			Live: func(context.Context) error {
				return fmt.Errorf("ask envoy: %w", &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)})
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(*starts) != 1 {
			t.Errorf("started %d times", len(*starts))
		}
		cancel()
		<-done
	})
}

func TestThreeMissedProbesInARowKillAChildWithinFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hung atomic.Bool
		c, starts, _ := stage(Spec{
			LiveInterval: 1500 * time.Millisecond, LiveTimeout: 1400 * time.Millisecond, LiveMisses: 3,
			Restart: Restart{BackoffMin: time.Second, BackoffMax: time.Second},
			Live: func(ctx context.Context) error {
				if !hung.Load() {
					return nil
				}
				<-ctx.Done() // a hung process answers nothing
				return ctx.Err()
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(*starts) != 1 {
			t.Fatalf("a child that answers was started %d times", len(*starts))
		}
		hung.Store(true)
		time.Sleep(7 * time.Second)
		synctest.Wait()
		if len(*starts) != 2 {
			t.Fatalf("a hung child was started %d times", len(*starts))
		}
		st := c.Status()
		if took := st.LastExit; took.Reason == "" || st.Restarts != 1 || st.By != (Restarts{Hung: 1}) {
			t.Errorf("status: got %+v", st)
		}
		if wait := (*starts)[1] - time.Hour - time.Second; wait > 6*time.Second {
			t.Errorf("killed %s after it hung", wait)
		}
		c.Kill()
		cancel()
		<-done
	})
}

func TestTheStopLadderTakesItsTime(t *testing.T) {
	for name, ready := range map[string]bool{"ready": true, "starting": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _, last := stage(Spec{
					StopTimeout: 4500 * time.Millisecond,
					Ready: func(context.Context) error {
						if ready {
							return nil
						}
						return errors.New("loading")
					},
				})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- c.Run(ctx) }()
				time.Sleep(time.Second)
				synctest.Wait()
				asked := time.Now()
				cancel()
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				if took := time.Since(asked); took != 4500*time.Millisecond {
					t.Errorf("killed after %s", took)
				}
				want := 1 // once only: a second SIGTERM may cut a server's own drain short
				if !ready {
					want = 5
				}
				if got := len(last().terms); got != want {
					t.Errorf("SIGTERM: got %d, want %d", got, want)
				}
			})
		})
	}
}
