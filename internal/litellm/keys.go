package litellm

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"tollgate/internal/apikey"
)

// Key is one key under its old digest.
type Key struct {
	Digest     [sha256.Size]byte // of the whole secret, sk- included
	ID         string            // "" = derived from the digest
	User       string
	Enabled    bool
	Models     []string // nil = all
	Concurrent *int64   // nil = the global limit
	Requests   *int64   // a minute
	Tokens     *int64   // a minute
	Quota      *int64   // tokens in Period; nil = unlimited
	Period     string   // total, day or month
	ExpiresAt  time.Time
	Note       string
}

// Options of [ReadKeys].
type Options struct {
	// TokensPerDollar turns budgets into quotas; 0 leaves them out, with a note.
	TokensPerDollar int64
}

// row is the part of a key of LiteLLM that is looked at; all else that is set has a
// note.
type row struct {
	Token          string   `json:"token"`
	Alias          string   `json:"key_alias"`
	User           string   `json:"user_id"`
	Team           string   `json:"team_id"`
	Models         []string `json:"models"`
	Concurrent     *int64   `json:"max_parallel_requests"`
	TokensMinute   *int64   `json:"tpm_limit"`
	RequestsMinute *int64   `json:"rpm_limit"`
	TokensDay      *int64   `json:"tpd_limit"`
	Budget         *float64 `json:"max_budget"`
	BudgetPeriod   string   `json:"budget_duration"`
	Spend          float64  `json:"spend"`
	Expires        string   `json:"expires"`
	Blocked        *bool    `json:"blocked"`
	TeamModels     []string `json:"team_models"`
	TeamBlocked    bool     `json:"team_blocked"`
}

// unmapped are the fields that change what a key may do and have no like here.
var unmapped = []string{
	"allowed_routes", "aliases", "config", "permissions", "model_max_budget", "budget_limits", "guardrails", "policies",
	"team_tpm_limit", "team_rpm_limit", "team_max_budget", "object_permission_id", "access_group_ids", "auto_rotate", "router_settings", "budget_fallbacks", "allowed_cache_controls", "budget_id",
}

// dashboard is the team of the keys that LiteLLM's own pages make for each login.
const dashboard = "litellm-dashboard"

// errNoKeys says that an export has none.
var errNoKeys = errors.New("it has no keys: export them with GET /key/list?return_full_object=true, or as JSON lines from the table LiteLLM_VerificationToken")

// ReadKeys reads an export: the answer of /key/list with return_full_object, an array
// of such keys, or JSON lines of rows of the database. The error names no secret.
func ReadKeys(data []byte, opts Options) ([]Key, []Note, error) {
	rows, err := exported(data)
	if err != nil {
		return nil, nil, fmt.Errorf("read LiteLLM's keys: %w", err)
	}
	k := &keyReader{opts: opts, ids: map[string]bool{}, digests: map[[sha256.Size]byte]bool{}}
	for i, raw := range rows {
		if err := k.read(i+1, raw); err != nil {
			return nil, nil, fmt.Errorf("read LiteLLM's keys: %w", err)
		}
	}
	return k.keys, k.list, nil
}

// exported finds the keys in any of the forms.
func exported(data []byte) ([]json.RawMessage, error) {
	var out []json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	for n := 1; ; n++ {
		var v json.RawMessage
		err := dec.Decode(&v)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("value %d is no JSON", n)
		}
		var list []json.RawMessage
		var page struct {
			Keys []json.RawMessage `json:"keys"`
		}
		switch {
		case json.Unmarshal(v, &list) == nil:
			out = append(out, list...)
		case json.Unmarshal(v, &page) == nil && page.Keys != nil:
			out = append(out, page.Keys...)
		default:
			out = append(out, v)
		}
	}
	if len(out) == 0 {
		return nil, errNoKeys
	}
	return out, nil
}

// keyReader goes through the keys.
type keyReader struct {
	notes
	opts    Options
	keys    []Key
	ids     map[string]bool
	digests map[[sha256.Size]byte]bool
}

// read takes one key; n counts from 1.
func (k *keyReader) read(n int, raw json.RawMessage) error {
	var r row
	var all map[string]any
	if raw[0] == '"' {
		return fmt.Errorf("key %d is a digest alone; export whole keys: GET /key/list?return_full_object=true", n)
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return fmt.Errorf("key %d is no object", n)
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return fmt.Errorf("key %d: %s is of another kind than LiteLLM writes", n, wrong.Field)
		}
		return fmt.Errorf("key %d cannot be read", n)
	}
	where := fmt.Sprintf("key %d", n)
	if r.Alias != "" {
		where += " (" + printable(r.Alias) + ")"
	}
	digest, err := digestOf(r.Token)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", where, err)
	case r.Team == dashboard:
		k.add("keys", "those that LiteLLM's own pages made for logins are left out")
		return nil
	case k.digests[digest]:
		k.add(where, "is in the export twice: taken once")
		return nil
	}
	k.digests[digest] = true
	key := Key{Digest: digest, ID: k.id(r.Alias), Enabled: r.Blocked == nil || !*r.Blocked, Concurrent: r.Concurrent, Requests: r.RequestsMinute, Tokens: r.TokensMinute, Period: "total"}
	key.User, key.Note = k.user(where, &r), noteOf(&r)
	if r.TeamBlocked {
		key.Enabled = false
		k.add(where, "belongs to a team that is blocked: it is imported disabled")
	}
	key.Models = k.models(where, &r)
	k.quota(where, &r, &key)
	if key.ExpiresAt, err = expiry(r.Expires); err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	for _, name := range unmapped {
		if set(all[name]) {
			k.add(where, "%s does not map", name)
		}
	}
	k.keys = append(k.keys, key)
	return nil
}

// digestOf reads a stored token: a digest, or a secret of an old version.
func digestOf(token string) (d [sha256.Size]byte, err error) {
	if strings.HasPrefix(token, "sk-") {
		return sha256.Sum256([]byte(token)), nil
	}
	raw, err := hex.DecodeString(token)
	if err != nil || len(raw) != len(d) {
		return d, errors.New("token is no SHA-256 in 64 hexadecimal digits, as LiteLLM stores it")
	}
	return [sha256.Size]byte(raw), nil
}

var notInID = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// id makes an id of an alias, and a second one of the same name another.
func (k *keyReader) id(alias string) string {
	base := strings.TrimLeft(notInID.ReplaceAllString(alias, "-"), "-._")
	base = base[:min(len(base), 56)]
	if base == "" || strings.HasPrefix(base, "sk-") {
		return ""
	}
	id := base
	for n := 2; k.ids[id]; n++ {
		id = fmt.Sprintf("%s-%d", base, n)
	}
	k.ids[id] = true
	return id
}

// reserved are users who may do more here than use models.
var reserved = []string{apikey.AdminUser, apikey.LauncherUser}

// user is who a key belongs to. No imported key opens /admin, whatever LiteLLM calls
// its user.
func (k *keyReader) user(where string, r *row) string {
	name := printable(r.User)
	for _, other := range []string{r.Team, r.Alias} {
		if name == "" {
			name = printable(other)
		}
	}
	if name == "" {
		return "litellm"
	}
	if slices.Contains(reserved, strings.ToLower(name)) {
		k.add(where, "belongs to %q, which here is a user with more rights: it becomes %q", name, "litellm-"+name)
		return "litellm-" + name
	}
	if wrong := apikey.BadUser(name); wrong != "" {
		k.add(where, "belongs to a user whose name %s: it becomes litellm", wrong)
		return "litellm"
	}
	return name
}

// models are the names that a key may use. A key whose models are decided elsewhere may
// use none: more than it had would be worse.
func (k *keyReader) models(where string, r *row) []string {
	models := r.Models
	if slices.Contains(models, "all-team-models") && len(r.TeamModels) > 0 {
		models = r.TeamModels
	}
	switch {
	case len(models) == 0, slices.Contains(models, "all-proxy-models"):
		return nil
	case slices.Contains(models, "no-default-models"):
		return []string{}
	case slices.Contains(models, "all-team-models"):
		k.add(where, "has the models of its team, which an export of keys does not name: it may use none until you say which (`tollgate keys set ID --model …`)")
		return []string{}
	}
	out := []string{}
	for _, m := range models {
		if strings.Contains(m, "*") {
			k.add(where, "may use the pattern %s: write the names (`tollgate keys set ID --model …`)", m)
			continue
		}
		out = append(out, m)
	}
	return out
}

// quota turns a budget into tokens where a price was given, and tpd_limit into a quota
// by day.
func (k *keyReader) quota(where string, r *row, key *Key) {
	switch {
	case r.TokensDay != nil:
		key.Quota, key.Period = r.TokensDay, "day"
		if r.Budget != nil {
			k.add(where, "has a budget beside its tokens by day: the budget does not map")
		}
	case r.Budget == nil:
	case k.opts.TokensPerDollar == 0:
		k.add(where, "has a budget of %g dollars: quotas here are tokens. Without --tokens-per-dollar it is not limited by it", *r.Budget)
	default:
		tokens := int64(math.Min(math.Max(*r.Budget, 0)*float64(k.opts.TokensPerDollar), 1<<53))
		key.Quota = &tokens
		var ok bool
		if key.Period, ok = period(r.BudgetPeriod); !ok {
			k.add(where, "has a budget for %s: a quota starts again each day or month, in UTC; month was taken", printable(r.BudgetPeriod))
		}
	}
	if r.Budget != nil && r.Spend >= *r.Budget && r.BudgetPeriod == "" {
		key.Enabled = false
		k.add(where, "has spent its budget: it is imported disabled")
	}
}

// period maps a duration of LiteLLM.
func period(s string) (string, bool) {
	switch s {
	case "":
		return "total", true
	case "1d", "24h":
		return "day", true
	case "1mo", "30d", "31d", "month":
		return "month", true
	}
	return "month", false
}

// expiry reads a time as LiteLLM or its database writes it; without a zone it is UTC.
func expiry(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999-07", "2006-01-02 15:04:05.999999999", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC().Truncate(time.Second), nil
		}
	}
	return time.Time{}, errors.New("expires is no time that LiteLLM writes")
}

// noteOf tells people where the key came from.
func noteOf(r *row) string {
	note := "from LiteLLM"
	if team := printable(r.Team); team != "" {
		note += ", team " + team
	}
	return note
}

// printable makes text fit for a name: one line, at most 100 bytes.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '�' {
			return -1
		}
		return r
	}, s)
	for len(s) > 100 {
		s = s[:strings.LastIndexFunc(s, func(rune) bool { return true })]
	}
	return strings.TrimSpace(s)
}

// set reports whether a field says something.
func set(v any) bool {
	switch x := v.(type) {
	case nil:
		return false
	case bool:
		return x
	case string:
		return x != "" && x != "{}" && x != "[]"
	case []any:
		return len(x) > 0
	case map[string]any:
		return len(x) > 0
	}
	return true
}
