package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tollgate/internal/apikey"
	"tollgate/internal/limit"
)

type keysShowCmd struct {
	outputFlag
	ID string `arg:"" help:"Id of the key, as \"tollgate keys list\" shows it."`
}

// Run shows one key, never its secret.
func (c *keysShowCmd) Run(env *Env) error {
	raw, err := c.find(env)
	if err != nil {
		return err
	}
	return showOne(env, c.Output, raw, func(io.Writer) error { return c.table(env, raw) })
}

func (c *keysShowCmd) table(env *Env, raw json.RawMessage) error {
	var fields map[string]jsontext.Value
	if err := json.Unmarshal(raw, &fields); err != nil {
		return fmt.Errorf("show key: %w", err)
	}
	type line struct{ name, value string }
	lines := []line{{"id", c.ID}}
	for name, value := range fields {
		if name != "id" {
			lines = append(lines, line{name, strings.Trim(string(value), `"`)})
		}
	}
	slices.SortFunc(lines[1:], func(a, b line) int { return strings.Compare(a.name, b.name) })
	return show(env, "table", lines,
		column[line]{name: "field", cell: func(l line) string { return l.name }},
		column[line]{name: "value", cell: func(l line) string { return l.value }},
	)
}

// find is the key as JSON: as another gateway tells it, or as the file has it.
func (c *keysShowCmd) find(env *Env) (raw json.RawMessage, err error) {
	if env.URL != "" {
		err = ask(env, http.MethodGet, "/admin/keys/"+url.PathEscape(c.ID), nil, &raw)
		return raw, err
	}
	cfg, err := env.Config()
	if err != nil {
		return nil, err
	}
	ring, err := readKeys(env, cfg)
	if err != nil {
		return nil, err
	}
	key, ok := ring.ByID(c.ID)
	if !ok {
		return nil, fmt.Errorf(`no key has the id %q; "tollgate keys list" shows them`, c.ID)
	}
	return json.Marshal(key.Info())
}

type keysSetCmd struct {
	ID                string    `arg:"" help:"Id of the key, as \"tollgate keys list\" shows it."`
	User              *string   `help:"Who the key belongs to."`
	Quota             countFlag `placeholder:"N" help:"Tokens per quota period; N or unlimited."`
	QuotaPeriod       *string   `placeholder:"P" help:"When the quota starts again, in UTC: total, day or month."`
	Model             []string  `placeholder:"M" help:"Model that the key may use; repeat it for more. These take the place of the old ones; all is every model."`
	Concurrent        countFlag `placeholder:"N" help:"Requests at once; N or unlimited."`
	RequestsPerMinute countFlag `placeholder:"N" help:"As above."`
	TokensPerMinute   countFlag `placeholder:"N" help:"As above."`
	TrustEndUser      *bool     `help:"Believe the key when it names the person behind a request, as Open WebUI does."`
	ExpiresAt         string    `placeholder:"T" help:"When the key ends: a time, a day, from now (12h, 90d), or never."`
	Note              *string   `help:"Anything, for people."`
}

// Help is what --help says beside the flags.
func (*keysSetCmd) Help() string {
	return `Changes what is given and nothing else. A running service takes it at once; its
live streams go on under the new limits.

  tollgate keys set alice-laptop --tokens-per-minute 50000
  tollgate keys set alice-laptop --quota unlimited --expires-at never
  tollgate keys set ci --model qwen --model llama`
}

// Run changes the key.
func (c *keysSetCmd) Run(env *Env) error {
	fields, err := c.fields(time.Now())
	if err != nil {
		return err
	}
	if len(fields) == 0 {
		return usageError("nothing to change: name at least one flag, see tollgate keys set --help")
	}
	if env.URL != "" {
		if err := ask(env, http.MethodPatch, "/admin/keys/"+url.PathEscape(c.ID), fields, nil); err != nil {
			return err
		}
		fmt.Fprintf(env.Stderr, "key %s: changed\n", c.ID)
		return nil
	}
	return wrongValue(change(env, c.ID, "changed", func(f *apikey.File) error { return f.Update(c.ID, fields) }))
}

// fields are what the flags say, as the key file and the API have it: null lifts.
func (c *keysSetCmd) fields(now time.Time) (apikey.Fields, error) {
	values := map[string]any{}
	text := func(name string, v *string) {
		if v != nil {
			values[name] = *v
		}
	}
	text("user", c.User)
	text("quota_period", c.QuotaPeriod)
	text("note", c.Note)
	if c.TrustEndUser != nil {
		values["trust_end_user"] = *c.TrustEndUser
	}
	limits := map[string]any{}
	for _, l := range []struct {
		name string
		flag countFlag
		to   map[string]any
	}{
		{"quota", c.Quota, values},
		{"concurrent", c.Concurrent, limits},
		{"requests_per_minute", c.RequestsPerMinute, limits},
		{"tokens_per_minute", c.TokensPerMinute, limits},
	} {
		switch {
		case l.flag.n == nil:
		case *l.flag.n == limit.Unlimited:
			l.to[l.name] = nil
		default:
			l.to[l.name] = *l.flag.n
		}
	}
	if len(limits) > 0 {
		values["limits"] = limits
	}
	switch {
	case slices.Equal(c.Model, []string{"all"}):
		values["models"] = nil
	case len(c.Model) > 0:
		values["models"] = c.Model
	}
	switch c.ExpiresAt {
	case "":
	case "never":
		values["expires_at"] = nil
	default:
		at, err := (&keysAddCmd{ExpiresAt: c.ExpiresAt}).expiry(now)
		if err != nil {
			return nil, err
		}
		values["expires_at"] = at
	}
	fields := apikey.Fields{}
	for name, value := range values {
		raw, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("change key: %w", err)
		}
		fields[name] = jsontext.Value(raw)
	}
	return fields, nil
}
