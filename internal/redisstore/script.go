package redisstore

import (
	"embed"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/rueidis"
)

//go:embed lua/*.lua
var lua embed.FS

// errOutage marks every failure after which Redis is not believed: no answer in
// time, an error, a reply of the wrong shape or to another call. It never
// leaves the package.
var errOutage = errors.New("redis does not answer as it should")

// scripts are all scripts of the store, each with the clock and the library in
// front.
type scripts struct {
	acquire, claim, reserve, adopt, extend, spend, release, renew *rueidis.Lua
	seed, restore, owe, view, totals, heartbeat, join, ticketKeys *rueidis.Lua
	sources                                                       []string
}

// newScripts assembles the scripts around a clock: a Lua function clock() that
// returns µs.
func newScripts(clock string) (*scripts, error) {
	var library strings.Builder
	library.WriteString(clock)
	for _, name := range []string{"head", "window", "debt", "quota", "lease", "use", "decide"} {
		text, err := lua.ReadFile("lua/" + name + ".lua")
		if err != nil {
			return nil, fmt.Errorf("read script: %w", err)
		}
		library.Write(text)
	}
	s := &scripts{}
	for name, script := range map[string]**rueidis.Lua{
		"acquire": &s.acquire, "claim": &s.claim, "reserve": &s.reserve, "spend": &s.spend, "release": &s.release,
		"renew": &s.renew, "seed": &s.seed, "restore": &s.restore, "view": &s.view, "totals": &s.totals,
		"heartbeat": &s.heartbeat, "join": &s.join, "extend": &s.extend, "owe": &s.owe, "adopt": &s.adopt,
		"ticketkeys": &s.ticketKeys,
	} {
		text, err := lua.ReadFile("lua/" + name + ".lua")
		if err != nil {
			return nil, fmt.Errorf("read script: %w", err)
		}
		source := library.String() + string(text)
		*script = rueidis.NewLuaScript(source)
		s.sources = append(s.sources, source)
	}
	return s, nil
}

// reply is what a script said after its mark.
type reply struct {
	verdict string
	values  []rueidis.RedisMessage
}

// integer returns the value at i.
func (r reply) integer(i int) (int64, error) {
	if i >= len(r.values) {
		return 0, fmt.Errorf("%w: reply has %d values", errOutage, len(r.values))
	}
	n, err := r.values[i].AsInt64()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errOutage, err)
	}
	return n, nil
}

// integers returns all values, which must be want many.
func (r reply) integers(want int) ([]int64, error) {
	if len(r.values) != want {
		return nil, fmt.Errorf("%w: reply has %d values, not %d", errOutage, len(r.values), want)
	}
	all := make([]int64, want)
	for i := range all {
		n, err := r.integer(i)
		if err != nil {
			return nil, err
		}
		all[i] = n
	}
	return all, nil
}

// parse believes a reply only if it is an array that begins with the mark of
// its call and a verdict.
func parse(result rueidis.RedisResult, mark string) (reply, error) {
	values, err := result.ToArray()
	if err != nil {
		return reply{}, fmt.Errorf("%w: %w", errOutage, err)
	}
	if len(values) < 2 {
		return reply{}, fmt.Errorf("%w: reply has %d values", errOutage, len(values))
	}
	if got, err := values[0].ToString(); err != nil || got != mark {
		return reply{}, fmt.Errorf("%w: reply to another call", errOutage)
	}
	verdict, err := values[1].ToString()
	switch {
	case err != nil:
		return reply{}, fmt.Errorf("%w: %w", errOutage, err)
	case verdict == "epoch":
		return reply{}, fmt.Errorf("%w: it lost what it held", errOutage)
	}
	return reply{verdict: verdict, values: values[2:]}, nil
}

// unexpected is the error of a verdict that the script cannot have given.
func unexpected(verdict string) error {
	return fmt.Errorf("%w: verdict %q", errOutage, verdict)
}
