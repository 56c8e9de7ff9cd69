package central

import (
	"context"
	"time"
)

// Run keeps the copy current until ctx ends, and calls changed after it was
// written.
func (k *Keys) Run(ctx context.Context, changed func()) error {
	told := make(chan struct{}, 1)
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		k.listen(ctx, told)
	}()
	defer func() { <-listening }()
	if err := k.CheckFile(); err != nil {
		k.log.Error("keys", "error", err)
	}
	t := time.NewTicker(keysPoll)
	defer t.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-told:
		}
		before := k.known()
		asking, cancel := context.WithTimeout(ctx, keysWait)
		err := k.pull(asking)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !failing:
			k.log.Warn("keys cannot be read from PostgreSQL, the last copy stays in use", "error", err)
		case err == nil && failing:
			k.log.Info("keys are read from PostgreSQL again")
		}
		failing = err != nil
		if k.known() != before {
			changed()
		}
	}
}

func (k *Keys) known() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.version
}

// listen passes on that keys were changed. It is a help only: while it has no
// connection the poll does it alone.
func (k *Keys) listen(ctx context.Context, told chan<- struct{}) {
	for ctx.Err() == nil {
		_ = k.listenOnce(ctx, told) // the poll says what is wrong
		pause(ctx, retryMax)
	}
}

func (k *Keys) listenOnce(ctx context.Context, told chan<- struct{}) error {
	conn, err := k.to.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	own := conn.Hijack() // it listens for ever and goes back to no pool
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = own.Close(closing)
	}()
	if _, err := own.Exec(ctx, "LISTEN "+keysChannel); err != nil {
		return err
	}
	for {
		if _, err := own.WaitForNotification(ctx); err != nil {
			return err
		}
		select {
		case told <- struct{}{}:
		default:
		}
	}
}
