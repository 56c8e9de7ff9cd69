package main

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestFewProcessorsAreHalf(t *testing.T) {
	for _, tt := range []struct {
		all  int
		sync string
		want int
	}{
		{1, "process", 1},
		{2, "process", 1},
		{3, "process", 2},
		{16, "process", 8},
		{1, "power", 1},
		{2, "power", 2},
		{8, "power", 4},
	} {
		if got := fewOf(tt.all, tt.sync); got != tt.want {
			t.Errorf("of %d with sync %s: got %d, want %d", tt.all, tt.sync, got, tt.want)
		}
	}
}

func TestProcessorsFollowTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			used atomic.Int64 // ns
			mu   sync.Mutex
			set  []int // guarded by mu
		)
		p := processors{few: 4, all: 8, cpu: func() time.Duration { return time.Duration(used.Load()) }, set: func(n int) {
			mu.Lock()
			defer mu.Unlock()
			set = append(set, n)
		}}
		was := func() []int {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(set)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go p.follow(ctx)
		synctest.Wait()
		for i, step := range []struct {
			busy float64 // processors
			want []int
		}{
			{2.3, nil},
			{2.5, []int{8}},
			{7.9, []int{8}},
			{1.5, []int{8}}, // not back at once
			{1.1, []int{8, 4}},
			{2.3, []int{8, 4}},
		} {
			used.Add(int64(step.busy * float64(lookEvery)))
			time.Sleep(lookEvery)
			synctest.Wait()
			if got := was(); !slices.Equal(got, step.want) {
				t.Errorf("step %d, %g busy: got %v, want %v", i, step.busy, got, step.want)
			}
		}
		cancel()
		synctest.Wait()
		if got := was(); !slices.Equal(got, []int{8, 4, 8}) {
			t.Errorf("with the drain: got %v, want all 8 at the end", got)
		}
	})
}

func TestServiceBeginsWithFewUnlessTold(t *testing.T) {
	before := runtime.GOMAXPROCS(4)
	defer runtime.GOMAXPROCS(before)
	adjustProcessors(t.Context(), func(string) string { return "4" }, "process")
	if got := runtime.GOMAXPROCS(0); got != 4 {
		t.Errorf("with GOMAXPROCS=4: got %d", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	adjustProcessors(ctx, func(string) string { return "" }, "process")
	if got := runtime.GOMAXPROCS(0); got != 2 {
		t.Errorf("of 4: got %d, want 2", got)
	}
	cancel()
	for end := time.Now().Add(10 * time.Second); runtime.GOMAXPROCS(0) != 4; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the end did not give the others back")
		}
	}
}

func TestCPUTimeGrows(t *testing.T) {
	before := cpuTime()
	for end := time.Now().Add(10 * time.Second); cpuTime() == before; {
		if time.Now().After(end) {
			t.Fatal("ten seconds of work took none")
		}
	}
}
