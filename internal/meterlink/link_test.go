package meterlink_test

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestAMeterListsItsStreamsAndIsHeard(t *testing.T) {
	with(t, nil, func(r *rig) {
		m := r.connect("2a-1")
		m.say("s L1 r 11 148 52", "s L2 w -1 -1 0", ended("L3"), "x L4", ".")
		if heard := strings.Join(r.all(), " "); !strings.Contains(heard, "ended 2a-1 L3 end") || !strings.Contains(heard, "ended 2a-1 L4 unplanned") {
			t.Errorf("heard %q", heard)
		}
		if said := strings.Join(m.lines(), " "); said != "a L3 a L4" && said != "a L4 a L3" {
			t.Errorf("tollgate said %q", said)
		}
		m.say("s L1 r 11 160 60", ".")
		r.was("live 2a-1 L1 r 11 160 60")
		if !r.Connected("2a-1") || r.Connected("2a-2") {
			t.Error("who is connected is not known")
		}
	})
}

// What a meter has said before the end of its first list is what it knows; only
// the first one of an instance is told.
func TestTheFirstListTellsWhatAMeterKnows(t *testing.T) {
	with(t, nil, func(r *rig) {
		m := r.connect("2a-1")
		m.say("s L1 r 1 1 1")
		_ = m.Close()
		synctest.Wait()
		m = r.connect("2a-1")
		m.say("s L1 r 1 2 1", "s L2 h 1 1 1", ".")
		r.was("live 2a-1 L1 r 1 1 1", "live 2a-1 L1 r 1 2 1", "live 2a-1 L2 h 1 1 1", "listed 2a-1 2")
		_ = m.Close()
		synctest.Wait()
		r.connect("2a-1").say(".")
		r.was()
	})
}

func TestARecordIsAcknowledgedWhenItIsWritten(t *testing.T) {
	with(t, nil, func(r *rig) {
		m := r.connect("2a-1")
		r.fail(errDisk)
		m.say(ended("L1"))
		r.was("ended 2a-1 L1 end")
		m.hears()
		pass(1100 * time.Millisecond)
		r.was("ended 2a-1 L1 end")
		m.hears()
		r.fail(nil)
		pass(time.Second)
		r.was("ended 2a-1 L1 end")
		m.hears("a L1")
		pass(5 * time.Second)
		r.was()
	})
}

// The acknowledgement goes to the connection that the meter has by then, and a
// record that comes again meanwhile is not written twice at a time.
func TestAnAcknowledgementThatIsLostIsGivenAgain(t *testing.T) {
	with(t, nil, func(r *rig) {
		m := r.connect("2a-1")
		r.fail(errDisk)
		m.say(ended("L1"))
		_ = m.Close()
		synctest.Wait()
		m = r.connect("2a-1")
		m.say(ended("L1"), ".")
		r.was("ended 2a-1 L1 end", "listed 2a-1 1")
		r.fail(nil)
		pass(time.Second)
		m.hears("a L1")
		m.say(ended("L1")) // that one was lost
		m.hears("a L1")
		r.was("ended 2a-1 L1 end", "ended 2a-1 L1 end")
	})
}

func TestAMeterThatComesBackHasLostNothing(t *testing.T) {
	with(t, nil, func(r *rig) {
		m := r.connect("2a-1")
		m.say(".")
		_ = m.Close()
		pass(900 * time.Millisecond)
		if r.Connected("2a-1") {
			t.Error("a meter that is away is connected")
		}
		r.connect("2a-1")
		pass(5 * time.Second)
		r.was("listed 2a-1 0")
	})
}

func TestAnEnvoyThatDiedLeavesItsFile(t *testing.T) {
	with(t, nil, func(r *rig) {
		m := r.connect("2a-1")
		m.say(".")
		r.spill("2a-1", "s L1 r 5 6 7\n"+ended("L2")+"\ns L1 r 5 8 9\ns L2 r 1 1 1\nx L3\n")
		r.spill("2a-2", ended("L9")+"\n") // another one's, who may come yet
		r.fail(errDisk)
		_ = m.Close()
		pass(1100 * time.Millisecond)
		if heard := r.all(); len(heard) < 4 || strings.Contains(strings.Join(heard, " "), "gone") || !r.spillThere("2a-1") {
			t.Errorf("while nothing can be written: heard %q, file there: %v", heard, r.spillThere("2a-1"))
		}
		if !r.spillThere("2a-2") {
			t.Error("the file of an Envoy that may come yet was taken")
		}
		_ = os.Remove(r.spillPath("2a-2"))
		r.fail(nil)
		pass(1100 * time.Millisecond)
		heard := r.all()
		if len(heard) < 3 || heard[len(heard)-1] != "gone 2a-1" || r.spillThere("2a-1") {
			t.Errorf("heard %q, file there: %v", heard, r.spillThere("2a-1"))
		}
	})
}

func TestWhatWasThereBeforeOurStartIsWaitedFor(t *testing.T) {
	with(t, []string{"2a-1", "2a-2"}, func(r *rig) {
		r.spill("2a-2", "s L1 r 5 6 7\n")
		r.spill("2a-3", ended("L9")+"\n")
		r.spill("no name", "nothing of ours\n")
		done := make(chan time.Duration, 1)
		start := time.Now()
		go func() { r.AwaitLists(r.Context()); done <- time.Since(start) }()
		short, cancel := context.WithTimeout(r.Context(), 100*time.Millisecond)
		r.AwaitLists(short)
		cancel()
		r.connect("2a-1").say(".")
		r.was("listed 2a-1 0")
		pass(1500 * time.Millisecond)
		r.was()
		pass(time.Second)
		r.was("live 2a-2 L1 r 5 6 7", "gone 2a-2", "ended 2a-3 L9 end", "gone 2a-3")
		if got := <-done; got < 2*time.Second || got > 3*time.Second {
			t.Errorf("waited %v for a meter that does not come", got)
		}
	})
}

func TestTollgateCutsExtendsAndPolls(t *testing.T) {
	with(t, nil, func(r *rig) {
		m := r.connect("2a-1")
		other := r.connect("2a-2")
		r.Cut("2a-1", "L1")
		r.Cut("2a-9", "L1") // never there: nothing to do
		m.say("q L2 900")
		r.was("asked 2a-1 L2 900")
		r.Extend("2a-1", "L2", 2000, 900)
		r.Extend("2a-1", "L2", -1, 0)
		m.hears("c L1", "g L2 2000 900", "g L2 - 0")
		polled := make(chan struct{})
		go func() { defer close(polled); r.Poll(r.Context()) }()
		m.hears("p")
		other.hears("p")
		m.say("s L2 r 1 2 3", ".")
		synctest.Wait()
		select {
		case <-polled:
			t.Error("does not wait for the other one")
		default:
		}
		_ = other.Close() // or it will never come
		<-polled
		r.was("live 2a-1 L2 r 1 2 3", "listed 2a-1 1")
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		r.Poll(ctx) // nobody answers
	})
}

func TestACutWaitsForAMeterThatIsAway(t *testing.T) {
	with(t, nil, func(r *rig) {
		m := r.connect("2a-1")
		_ = m.Close()
		synctest.Wait()
		r.Cut("2a-1", "L1")
		m = r.open()
		m.say("hello 1 2a-1 77 0123456789ab", "s L1 r 1 1 1")
		m.hears("welcome 1", "c L1")
	})
}

func TestAnotherConnectionTakesThePlaceOfTheFirst(t *testing.T) {
	with(t, nil, func(r *rig) {
		first := r.connect("2a-1")
		second := r.connect("2a-1")
		first.hangsUp()
		pass(5 * time.Second)
		r.Cut("2a-1", "L1")
		second.hears("c L1")
		r.was()
		if n := testutil.ToFloat64(gathered(r, "meters_connected")); n != 1 {
			t.Errorf("%v meters are connected", n)
		}
	})
}

func TestStrangersAreSentAway(t *testing.T) {
	for name, first := range map[string]string{
		"no hello":       "GET / HTTP/1.1",
		"no version":     "hello one 2a-1 77 0123456789ab",
		"no instance":    "hello 1 ../../etc 77 0123456789ab",
		"short":          "hello 1",
		"empty":          "",
		"two spaces":     "hello  1 2a-1 77 0123456789ab",
		"longer than it": "hello 1 2a-1 77 " + strings.Repeat("0", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			with(t, nil, func(r *rig) {
				m := r.open()
				m.say(first)
				m.hangsUp()
				r.was()
			})
		})
	}
	t.Run("silent", func(t *testing.T) {
		with(t, nil, func(r *rig) {
			m := r.open()
			pass(6 * time.Second)
			m.hangsUp()
		})
	})
	t.Run("another version", func(t *testing.T) {
		with(t, nil, func(r *rig) {
			m := r.open()
			m.say("hello 2 2a-1 77 0123456789ab")
			m.hears("bye version")
			m.hangsUp()
			if r.Connected("2a-1") {
				t.Error("it is connected")
			}
		})
	})
}

// A line that nobody understands says nothing: the meter would only say it again.
func TestWhatIsNotUnderstoodIsLetAlone(t *testing.T) {
	with(t, nil, func(r *rig) {
		m := r.connect("2a-1")
		m.say("z L1 something newer", "s L1", "s L1 q 1 1 1", "s L1 r 1 1", "s L1 r 1x 1 1", "s L1 r +1 1 1", "s L1 r -2 1 1", "s  L1 r 1 1 1",
			"e L1 end", ended("a/b"), strings.Replace(ended("L1"), " end ", " unplanned ", 1), strings.Replace(ended("L1"), "0,0,0", "0,0", 1),
			strings.Replace(ended("L1"), "via_upstream", "%zz", 1), "x", "q L1 many", "i spilled=-1", "i hold=1,2", "", " ")
		m.hears()
		r.was()
		if n := testutil.ToFloat64(gathered(r, "meter_lines_malformed_total")); n != 16 {
			t.Errorf("%v lines were not understood", n)
		}
		m.say("s L2 r 1 1 1 and more", ended("L1")+" more of a newer meter")
		m.hears("a L1")
		r.was("live 2a-1 L2 r 1 1 1", "ended 2a-1 L1 end")
	})
}

func TestALineThatIsTooLongEndsTheConnection(t *testing.T) {
	with(t, nil, func(r *rig) {
		m := r.connect("2a-1")
		_, _ = m.Write([]byte("z " + strings.Repeat("y", 5000) + "\n"))
		m.hangsUp()
	})
}

// A meter that does not read delays neither a cut of its streams nor other meters.
func TestAMeterThatDoesNotReadIsGivenUp(t *testing.T) {
	with(t, nil, func(r *rig) {
		ours, theirs := net.Pipe()
		r.dial <- theirs
		_, _ = ours.Write([]byte("hello 1 2a-1 77 0123456789ab\n"))
		synctest.Wait()
		for range 1000 {
			r.Cut("2a-1", "L1")
		}
		other := r.connect("2a-2")
		r.Cut("2a-2", "L1")
		other.hears("c L1")
		pass(600 * time.Millisecond)
		if r.Connected("2a-1") {
			t.Error("it is connected")
		}
		_ = ours.Close()
	})
}

func TestTheCountersOfMetersAreSummed(t *testing.T) {
	with(t, nil, func(r *rig) {
		m := r.connect("2a-1")
		m.say(".", "i spilled=2 panics=1 refused=3 unenforced=4 cuts=9 held=3 held_us=1500 hold=1,2,0,0,0,0,1 outbox=7 live=3 newer=x")
		_ = m.Close()
		pass(2 * time.Second) // its Envoy is gone
		r.connect("2a-2").say("i spilled=1 panics=0 refused=0 unenforced=0 held=1 held_us=500 hold=1,0,0,0,0,0,0")
		synctest.Wait()
		const want = `
# HELP meter_hold_seconds Time that the ends of answers have waited inside Envoy for their record to be written.
# TYPE meter_hold_seconds histogram
meter_hold_seconds_bucket{le="0.001"} 2
meter_hold_seconds_bucket{le="0.005"} 4
meter_hold_seconds_bucket{le="0.025"} 4
meter_hold_seconds_bucket{le="0.1"} 4
meter_hold_seconds_bucket{le="0.5"} 4
meter_hold_seconds_bucket{le="2"} 4
meter_hold_seconds_bucket{le="+Inf"} 5
meter_hold_seconds_sum 0.002
meter_hold_seconds_count 5
# HELP meter_panics_total Streams that a meter cut because of a fault of its own. Must be 0.
# TYPE meter_panics_total counter
meter_panics_total 1
# HELP meter_spilled_total Records that a meter wrote into its file because tollgate did not acknowledge them in time.
# TYPE meter_spilled_total counter
meter_spilled_total 3
`
		if err := testutil.GatherAndCompare(r.reg, strings.NewReader(want), "meter_hold_seconds", "meter_spilled_total", "meter_panics_total"); err != nil {
			t.Error(err)
		}
	})
}

// Records that come in thousands are written many at a time, and each is acknowledged.
func TestManyRecordsAreAllAcknowledged(t *testing.T) {
	with(t, nil, func(r *rig) {
		m := r.connect("2a-1")
		const n = 3000
		for i := range n {
			m.say(ended("L" + strconv.Itoa(i)))
		}
		synctest.Wait()
		acked := map[string]bool{}
		for _, line := range m.lines() {
			acked[line] = true
		}
		if len(acked) != n || len(r.all()) != n {
			t.Errorf("%d of %d acknowledged", len(acked), n)
		}
	})
}
