package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/redis/rueidis"
)

// conn runs scripts in Redis.
type conn struct {
	client  rueidis.Client
	scripts *scripts
	base    string // of every key
	run     string // random; names this connection's calls
	marks   atomic.Uint64
	epoch   atomic.Pointer[string] // nil until the first heartbeat
}

func newConn(client rueidis.Client, s *scripts, base string) *conn {
	return &conn{client: client, scripts: s, base: base, run: rand.Text()}
}

// call runs one script in the epoch that this replica knows.
func (c *conn) call(ctx context.Context, script *rueidis.Lua, args ...string) (reply, error) {
	return c.callIn(ctx, *c.epoch.Load(), script, args...)
}

// callIn runs one script and returns when it answered or ctx is over, whatever
// the client is doing. Every error is an [errOutage].
func (c *conn) callIn(ctx context.Context, epoch string, script *rueidis.Lua, args ...string) (reply, error) {
	if ctx.Err() != nil {
		return reply{}, fmt.Errorf("%w: %w", errOutage, ctx.Err())
	}
	mark := c.mark()
	answer := make(chan rueidis.RedisResult, 1)
	// The client heeds ctx while it waits for a reply, but a call that finds
	// another one connecting waits for that. Hence the goroutine, which ends with
	// ctx, with that attempt (connectTimeout) or with the client.
	go func() {
		answer <- script.Exec(ctx, c.client, []string{c.base}, append([]string{mark, epoch}, args...))
	}()
	select {
	case result := <-answer:
		return parse(result, mark)
	case <-ctx.Done():
		return reply{}, fmt.Errorf("%w: %w", errOutage, ctx.Err())
	}
}

// mark names one call of one run of one replica.
func (c *conn) mark() string { return strconv.FormatUint(c.marks.Add(1), 36) + "." + c.run }

// load puts the scripts into Redis, so that every later call is one round trip.
func (c *conn) load(ctx context.Context) error {
	commands := make(rueidis.Commands, 0, len(c.scripts.sources))
	for _, source := range c.scripts.sources {
		commands = append(commands, c.client.B().ScriptLoad().Script(source).Build())
	}
	loaded := make(chan error, 1)
	go func() { // see callIn
		var failed error
		for _, r := range c.client.DoMulti(ctx, commands...) {
			failed = errors.Join(failed, r.Error())
		}
		loaded <- failed
	}()
	select {
	case err := <-loaded:
		if err != nil {
			return fmt.Errorf("load scripts: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("load scripts: %w", ctx.Err())
	}
}

// leave takes a replica off the list of those that are there.
func (c *conn) leave(ctx context.Context, replica string) {
	// One that is not removed goes by itself after replicaLife.
	_ = c.client.Do(ctx, c.client.B().Zrem().Key(c.base+"replicas").Member(replica).Build()).Error()
}
