package main

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"tollgate/internal/apikey"
)

type keysListCmd struct {
	outputFlag
	JSON bool `name:"json" help:"The same as --output json."`
}

// Help is what --help says beside the flags.
func (*keysListCmd) Help() string {
	return `Shows each key's id, user, state, quota, models, limits and end, never a secret.

  tollgate keys list
  tollgate keys list --json | jq -r '.[] | select(.enabled | not) | .id'`
}

// Run lists the keys in the order of the file.
func (c *keysListCmd) Run(env *Env) error {
	cfg, err := env.Config()
	if err != nil {
		return err
	}
	ring, err := readKeys(env, cfg)
	if err != nil {
		return err
	}
	if c.JSON {
		c.Output = "json"
	}
	if forPeople(c.Output) {
		return listTable(env, ring.Keys(), ring.HasDefault(), time.Now())
	}
	keys := ring.Keys()
	list := make([]apikey.Info, len(keys))
	for i, k := range keys {
		list[i] = k.Info()
	}
	return show(env, c.Output, list)
}

// listTable prints a line for each key; public says whether the default key is honoured.
func listTable(env *Env, keys []*apikey.Key, public bool, now time.Time) error {
	return show(env, "table", keys,
		column[*apikey.Key]{name: "id", cell: func(k *apikey.Key) string { return k.ID }},
		column[*apikey.Key]{name: "user", cell: func(k *apikey.Key) string { return dash(k.User) }},
		column[*apikey.Key]{name: "state", cell: func(k *apikey.Key) string { return state(k, public, now) }},
		column[*apikey.Key]{name: "quota", cell: func(k *apikey.Key) string { return quota(k.Info()) }},
		column[*apikey.Key]{name: "models", cell: models},
		column[*apikey.Key]{name: "limits", cell: func(k *apikey.Key) string { return limits(k.Info().Limits) }},
		column[*apikey.Key]{name: "expires", cell: func(k *apikey.Key) string { return until(k.ExpiresAt) }},
		column[*apikey.Key]{name: "note", cell: func(k *apikey.Key) string { return dash(k.Note) }},
	)
}

// state says whether the key passes now, and why not.
func state(k *apikey.Key, public bool, now time.Time) string {
	switch {
	case !k.Enabled && k.Drain:
		return "disabled (drain)"
	case !k.Enabled:
		return "disabled"
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return "expired"
	case now.Before(k.NotBefore):
		return "from " + until(k.NotBefore)
	case k.Default && !public:
		return "void (public)" // there are better ones
	case k.Default:
		return "enabled (public)"
	}
	return "enabled"
}

func quota(i apikey.Info) string {
	if i.Quota == nil {
		return "-"
	}
	text := strconv.FormatInt(*i.Quota, 10)
	if i.QuotaPeriod == apikey.Total {
		return text
	}
	return text + "/" + string(i.QuotaPeriod)
}

func models(k *apikey.Key) string {
	switch {
	case k.Models == nil:
		return "all"
	case len(k.Models) == 0:
		return "none"
	}
	return strings.Join(k.Models, ",")
}

func limits(l apikey.LimitsInfo) string {
	var parts []string
	for _, c := range []struct {
		name string
		cap  *apikey.Cap
	}{{"concurrent", l.Concurrent}, {"requests/min", l.RequestsPerMinute}, {"tokens/min", l.TokensPerMinute}} {
		if c.cap == nil {
			continue
		}
		value := strconv.FormatInt(int64(*c.cap), 10)
		if *c.cap < 0 {
			value = "unlimited"
		}
		parts = append(parts, c.name+"="+value)
	}
	return dash(strings.Join(parts, " "))
}

func until(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// wrongValue makes wrong usage of a value that the key file does not take.
func wrongValue(err error) error {
	if errors.Is(err, apikey.ErrInvalid) || errors.Is(err, apikey.ErrExists) {
		return usageError("%w", err)
	}
	return err
}
