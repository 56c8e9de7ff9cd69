package redisstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

const (
	// ticketKeyLife is how long one key seals tickets. Those before it open them for
	// as long again at least.
	ticketKeyLife = 24 * time.Hour
	// listenPause is between two attempts to listen.
	listenPause = 500 * time.Millisecond
)

// errAway says that something needs Redis and cannot wait for it.
var errAway = errors.New("redis does not answer")

// TicketKeys returns the keys that tickets are sealed with, newest first. They are
// the same for all replicas: the first one makes a key, fresh; each seals for a
// day. current is the key that this replica seals with, or empty: it is what a
// Redis that lost its data starts with again. An error means that Redis could not
// be asked: the caller goes on with the keys that it has.
func (s *Store) TicketKeys(ctx context.Context, current, fresh string) ([]string, error) {
	if s.circuit.state() != shared {
		return nil, fmt.Errorf("read ticket keys: %w", errAway)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	r, err := s.conn.call(ctx, s.conn.scripts.ticketKeys, current, fresh, number(ticketKeyLife.Microseconds()))
	if err != nil {
		return nil, fmt.Errorf("read ticket keys: %w: %w", errAway, err)
	}
	if r.verdict != "ok" || len(r.values) == 0 {
		return nil, fmt.Errorf("read ticket keys: %w", unexpected(r.verdict))
	}
	keys := make([]string, len(r.values))
	for i := range keys {
		if keys[i], err = r.values[i].ToString(); err != nil {
			return nil, fmt.Errorf("read ticket keys: %w", unexpected(r.verdict))
		}
	}
	return keys, nil
}

// Name is this replica's name among its peers.
func (s *Store) Name() string { return s.replica }

// Peers is how many other replicas were seen last.
func (s *Store) Peers() int { return int(max(0, s.local.peers.count()-1)) }

// channel names where a replica listens; "" is where all do.
func (s *Store) channel(replica string) string { return s.conn.base + "bus:" + replica }

// Publish sends a message to one replica, or to all with "", this one included.
// It arrives at most once: a replica that does not listen at that moment misses it.
// heard is how many listened. An error says that nobody got it.
func (s *Store) Publish(ctx context.Context, to string, message []byte) (heard int, err error) {
	if s.circuit.state() != shared {
		return 0, fmt.Errorf("publish: %w", errAway)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	sent := make(chan rueidis.RedisResult, 1)
	go func() { // see conn.callIn
		cmd := s.conn.client.B().Publish().Channel(s.channel(to)).Message(rueidis.BinaryString(message)).Build()
		sent <- s.conn.client.Do(ctx, cmd)
	}()
	var n int64
	select {
	case answer := <-sent:
		n, err = answer.AsInt64()
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return 0, fmt.Errorf("publish: %w: %w", errAway, err)
	}
	return int(n), nil
}

// Listen hears what is published to all or to this replica, in order, until ctx
// ends. While Redis is away nothing is heard; then it listens again by itself.
// heard must not block.
func (s *Store) Listen(ctx context.Context, heard func(message []byte)) error {
	for {
		s.listen(ctx, heard)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(listenPause):
		}
	}
}

// listen hears until the connection or ctx ends. It has a connection of its own:
// messages must not stand between a decision and its answer.
func (s *Store) listen(ctx context.Context, heard func(message []byte)) {
	client, give := s.conn.client.Dedicate()
	defer give()
	cmd := client.B().Subscribe().Channel(s.channel(""), s.channel(s.replica)).Build()
	// However it ends, the caller begins again.
	_ = client.Receive(ctx, cmd, func(m rueidis.PubSubMessage) { heard([]byte(m.Message)) })
}
