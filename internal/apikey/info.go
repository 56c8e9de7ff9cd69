package apikey

import (
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tollgate/internal/limit"
)

// Info is a key as people and the admin API see it, in the names of the key
// file. It holds no secret and no digest.
type Info struct {
	ID          string     `json:"id"`
	User        string     `json:"user"`
	Enabled     bool       `json:"enabled"`
	Drain       bool       `json:"drain,omitzero"`
	Default     bool       `json:"default,omitzero"` // the public default key
	Quota       *int64     `json:"quota"`            // null = unlimited
	QuotaPeriod Period     `json:"quota_period"`
	Models      []string   `json:"models,omitzero"` // absent = all
	Limits      LimitsInfo `json:"limits,omitzero"`
	// TrustEndUser: requests of this key name the person behind them.
	TrustEndUser bool       `json:"trust_end_user,omitzero"`
	NotBefore    *time.Time `json:"not_before,omitzero"`
	ExpiresAt    *time.Time `json:"expires_at,omitzero"`
	Note         string     `json:"note,omitzero"`
}

// LimitsInfo are the limits that differ from the global ones.
type LimitsInfo struct {
	Concurrent        *Cap `json:"concurrent,omitzero"`
	RequestsPerMinute *Cap `json:"requests_per_minute,omitzero"`
	TokensPerMinute   *Cap `json:"tokens_per_minute,omitzero"`
}

// Cap is a limit; [limit.Unlimited] is null in JSON.
type Cap int64

// MarshalJSON writes the number, or null.
func (c Cap) MarshalJSON() ([]byte, error) {
	if int64(c) == limit.Unlimited {
		return []byte("null"), nil
	}
	return strconv.AppendInt(nil, int64(c), 10), nil
}

// Info describes the key.
func (k *Key) Info() Info {
	i := Info{
		ID: k.ID, User: k.User, Enabled: k.Enabled, Drain: k.Drain, Default: k.Default,
		QuotaPeriod: k.QuotaPeriod, Models: k.Models, TrustEndUser: k.TrustEndUser, Note: k.Note,
		Limits: LimitsInfo{(*Cap)(k.Concurrent), (*Cap)(k.RequestsPerMinute), (*Cap)(k.TokensPerMinute)},
	}
	if k.Quota != limit.Unlimited {
		i.Quota = &k.Quota
	}
	if !k.NotBefore.IsZero() {
		i.NotBefore = &k.NotBefore
	}
	if !k.ExpiresAt.IsZero() {
		i.ExpiresAt = &k.ExpiresAt
	}
	return i
}

// Fields are what [File.Add] needs to make a key like it. An empty id is left out.
func (i Info) Fields() Fields {
	i.Default = false // no field: it follows from the secret
	if i.Quota != nil && *i.Quota == limit.Unlimited {
		i.Quota = nil
	}
	b, err := json.Marshal(i)
	fields := Fields{}
	if err == nil {
		err = json.Unmarshal(b, &fields)
	}
	if err != nil {
		// Text that is not UTF-8; Add refuses what stands in its place.
		return Fields{"note": jsontext.Value("false")}
	}
	if i.ID == "" {
		delete(fields, "id")
	}
	if i.QuotaPeriod == Total || i.QuotaPeriod == "" {
		delete(fields, "quota_period")
	}
	return fields
}
