package apikey

import (
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tollgate/internal/limit"
	"tollgate/internal/whole"
)

// maxCount bounds every count: above it Redis, which counts in doubles, is no
// longer exact.
const maxCount = 1 << 53

// maxText is the longest user, id, model or note in bytes.
const maxText = 256

var (
	validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	// showable are the names of fields that may be repeated in a message.
	showable = regexp.MustCompile(`^[A-Za-z0-9_]{1,24}$`)
)

// fields reads the members of one entry; it goes on after a mistake.
type fields struct {
	*report
	n  int // of the entry, from 1
	id string
}

func (f *fields) bad(m *member, field, message string) {
	f.add(m.offset, mistake{f.n, f.id, field, message})
}

// decode gives the entry its meaning. The offset is the entry's own.
func (e *entry) decode(r *report, n, offset int) {
	f := &fields{report: r, n: n}
	key := &Key{Quota: limit.Unlimited, QuotaPeriod: Total, Enabled: true}
	e.record.key = key
	if m := e.member("id"); m != nil {
		f.identity(m, key)
	}
	for i := range e.members {
		f.field(&e.members[i], e)
	}
	plain, digest := e.member("key"), e.member("key_sha256")
	switch {
	case plain == nil && digest == nil:
		r.add(offset, mistake{entry: n, id: f.id, message: "has neither key nor key_sha256"})
	case plain != nil && digest != nil:
		f.bad(digest, "key_sha256", "stands beside key; keep one of them")
	}
	if key.ID == "" && e.record.digest != ([32]byte{}) {
		key.ID = derivedID(e.record.digest)
	}
	if !key.ExpiresAt.IsZero() && !key.NotBefore.Before(key.ExpiresAt) {
		f.bad(e.member("expires_at"), "expires_at", "is not after not_before, so that the key is never valid")
	}
	key.Default = e.record.digest == Digest(DefaultSecret)
}

func (f *fields) identity(m *member, key *Key) {
	id, ok := f.text(m, "id")
	switch {
	case !ok || m.value.Kind() == 'n':
	case !validID.MatchString(id) || strings.HasPrefix(id, "sk-"):
		f.bad(m, "id", "must be up to 64 letters, digits, dots, dashes and underscores, and not begin with sk-")
	default:
		key.ID, f.id = id, id
	}
}

// unknown names a field that is not known, unless it may be a secret.
func unknown(name string) string {
	if !showable.MatchString(name) {
		return "has a field that is not known"
	}
	return "has the field " + strconv.Quote(name) + ", which is not known"
}

func (f *fields) text(m *member, field string) (string, bool) {
	if m.value.Kind() == 'n' {
		return "", true
	}
	var s string
	if m.value.Kind() != '"' || json.Unmarshal(m.value, &s) != nil {
		f.bad(m, field, "must be text in quotes")
		return "", false
	}
	if len(s) > maxText || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		f.bad(m, field, fmt.Sprintf("must be at most %d bytes without control characters", maxText))
		return "", false
	}
	return s, true
}

func (f *fields) user(m *member, key *Key) {
	name, ok := f.text(m, "user")
	if wrong := BadUser(name); ok && wrong != "" {
		f.bad(m, "user", wrong)
		return
	}
	key.User = name
}

// minSecret is the length in bytes below which we warn of a secret: it can be guessed,
// or found from its digest.
const minSecret = 16

// secret reads a secret and returns its length.
func (f *fields) secret(m *member, to *[32]byte) int {
	var s string
	if m.value.Kind() != '"' || json.Unmarshal(m.value, &s) != nil {
		f.bad(m, "key", "must be text in quotes")
		return 0
	}
	if _, err := secret(s); err != nil {
		f.bad(m, "key", fmt.Sprintf("must be 1 to %d letters, digits and -._~+/=, or no client can send it", MaxCredential))
		return 0
	}
	*to = Digest(s)
	return len(s)
}

func (f *fields) digest(m *member, field string, value jsontext.Value, to *[32]byte) {
	var s string
	if value.Kind() == '"' && json.Unmarshal(value, &s) == nil && len(s) == 2*len(to) {
		if _, err := hex.Decode(to[:], []byte(s)); err == nil && *to != ([32]byte{}) {
			return
		}
	}
	*to = [32]byte{}
	f.bad(m, field, "must be the SHA-256 of the key in 64 hexadecimal digits")
}

// count is a number of tokens or requests; 0 lets nothing pass.
func (f *fields) count(m *member, field string, value jsontext.Value) int64 {
	n, isWhole := int64(0), false
	if value.Kind() == '0' {
		n, isWhole = whole.Number(value)
	}
	if !isWhole || n < 0 || n > maxCount {
		f.bad(m, field, "must be a whole number from 0 to 9007199254740992, or null for no limit")
		return 0
	}
	return n
}

func (f *fields) boolean(m *member, field string, absent bool) bool {
	switch m.value.Kind() { //nolint:exhaustive // all others are the mistake
	case 't':
		return true
	case 'f':
		return false
	case 'n':
		return absent
	default:
		f.bad(m, field, "must be true or false")
		return absent
	}
}

func (f *fields) quota(m *member, key *Key) {
	if m.value.Kind() != 'n' {
		key.Quota = f.count(m, "quota", m.value)
	}
}

func (f *fields) quotaPeriod(m *member, key *Key) {
	s, ok := f.text(m, "quota_period")
	switch p := Period(s); {
	case !ok, m.value.Kind() == 'n':
	case p == Total, p == Day, p == Month:
		key.QuotaPeriod = p
	default:
		f.bad(m, "quota_period", `must be "total", "day" or "month"`)
	}
}

func (f *fields) time(m *member, field string, value jsontext.Value) time.Time {
	if value.Kind() == 'n' {
		return time.Time{}
	}
	var s string
	if value.Kind() == '"' && json.Unmarshal(value, &s) == nil {
		if t, err := time.Parse(time.RFC3339, s); err == nil && !t.IsZero() {
			return t.UTC()
		}
	}
	f.bad(m, field, `must be a time of RFC 3339, as "2026-12-31T23:59:59Z"`)
	return time.Time{}
}

func (f *fields) models(m *member, key *Key) {
	if m.value.Kind() == 'n' {
		return
	}
	models := []string{}
	if m.value.Kind() != '[' || json.Unmarshal(m.value, &models) != nil {
		f.bad(m, "models", `must be a list of names, as ["qwen"], or null for all`)
		return
	}
	for _, name := range models {
		if name == "" || len(name) > maxText {
			f.bad(m, "models", "has a name that is empty or too long")
			return
		}
	}
	key.Models = models
}

func (f *fields) limits(m *member, key *Key) {
	if m.value.Kind() == 'n' {
		return
	}
	var raw map[string]jsontext.Value
	if m.value.Kind() != '{' || json.Unmarshal(m.value, &raw) != nil {
		f.bad(m, "limits", "must be an object with "+limitNames())
		return
	}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		i := slices.IndexFunc(limitTable, func(l limitField) bool { return l.name == name })
		if i < 0 {
			f.bad(m, "limits", unknown(name)+"; known: "+limitNames())
			continue
		}
		n := limit.Unlimited
		if value := raw[name]; value.Kind() != 'n' {
			n = f.count(m, "limits."+name, value)
		}
		*limitTable[i].of(key) = &n
	}
}

func (f *fields) previous(m *member, e *entry) {
	if m.value.Kind() == 'n' {
		return
	}
	var items []map[string]jsontext.Value
	if m.value.Kind() != '[' || json.Unmarshal(m.value, &items) != nil {
		f.bad(m, "previous", `must be a list, as [{"key_sha256": "…", "expires_at": "…"}]`)
		return
	}
	for i, item := range items {
		field := fmt.Sprintf("previous[%d]", i)
		for _, name := range slices.Sorted(maps.Keys(item)) {
			if name != "key_sha256" && name != "expires_at" {
				f.bad(m, field, unknown(name)+"; known: key_sha256, expires_at")
			}
		}
		var p previous
		f.digest(m, field+".key_sha256", item["key_sha256"], &p.digest)
		if v, ok := item["expires_at"]; !ok || v.Kind() == 'n' {
			f.bad(m, field+".expires_at", "is missing; an old secret needs an end")
		} else {
			p.expiresAt = f.time(m, field+".expires_at", v)
		}
		e.record.previous = append(e.record.previous, p)
	}
}
