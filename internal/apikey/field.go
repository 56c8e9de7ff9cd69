package apikey

import "strings"

// field is one field of an entry of the key file.
type field struct {
	name string
	// decode gives the member its meaning. Null is the same as absent, except in limits.
	decode func(f *fields, m *member, e *entry)
	// set says that [File.Add] and [File.Update] take the field.
	set bool
	// bound says that null in [File.Update] takes the value away; the null of
	// another field changes nothing.
	bound bool
}

// fieldTable has every field of an entry, in the order in which a new entry is
// written. It is filled in by init, because its functions name the table.
var fieldTable []field

func init() {
	fieldTable = []field{
		{name: "id", set: true, decode: func(*fields, *member, *entry) {}}, // decoded before the others
		{name: "key", decode: func(f *fields, m *member, e *entry) { e.short = f.secret(m, &e.record.digest) < minSecret }},
		{name: "key_sha256", decode: func(f *fields, m *member, e *entry) { f.digest(m, "key_sha256", m.value, &e.record.digest) }},
		{name: "user", set: true, decode: func(f *fields, m *member, e *entry) { f.user(m, e.record.key) }},
		{name: "enabled", set: true, decode: func(f *fields, m *member, e *entry) { e.record.key.Enabled = f.boolean(m, "enabled", true) }},
		{name: "drain", set: true, decode: func(f *fields, m *member, e *entry) { e.record.key.Drain = f.boolean(m, "drain", false) }},
		{name: "quota", set: true, bound: true, decode: func(f *fields, m *member, e *entry) { f.quota(m, e.record.key) }},
		{name: "quota_period", set: true, decode: func(f *fields, m *member, e *entry) { f.quotaPeriod(m, e.record.key) }},
		{name: "models", set: true, bound: true, decode: func(f *fields, m *member, e *entry) { f.models(m, e.record.key) }},
		{name: "limits", set: true, bound: true, decode: func(f *fields, m *member, e *entry) { f.limits(m, e.record.key) }},
		{name: "trust_end_user", set: true, decode: func(f *fields, m *member, e *entry) {
			e.record.key.TrustEndUser = f.boolean(m, "trust_end_user", false)
		}},
		{name: "not_before", set: true, bound: true, decode: func(f *fields, m *member, e *entry) { e.record.key.NotBefore = f.time(m, "not_before", m.value) }},
		{name: "expires_at", set: true, bound: true, decode: func(f *fields, m *member, e *entry) { e.record.key.ExpiresAt = f.time(m, "expires_at", m.value) }},
		{name: "previous", decode: func(f *fields, m *member, e *entry) { f.previous(m, e) }},
		{name: "note", set: true, bound: true, decode: func(f *fields, m *member, e *entry) { e.record.key.Note, _ = f.text(m, "note") }},
	}
}

// fieldNamed is the field of that name; nil when there is none.
func fieldNamed(name string) *field {
	for i := range fieldTable {
		if fieldTable[i].name == name {
			return &fieldTable[i]
		}
	}
	return nil
}

// fieldNames lists the fields for a message.
func fieldNames(wanted func(*field) bool) string {
	var names []string
	for i := range fieldTable {
		if wanted(&fieldTable[i]) {
			names = append(names, fieldTable[i].name)
		}
	}
	return strings.Join(names, ", ")
}

// limitField is one limit in the field limits.
type limitField struct {
	name string
	of   func(*Key) **int64
}

var limitTable = []limitField{
	{"concurrent", func(k *Key) **int64 { return &k.Concurrent }},
	{"requests_per_minute", func(k *Key) **int64 { return &k.RequestsPerMinute }},
	{"tokens_per_minute", func(k *Key) **int64 { return &k.TokensPerMinute }},
}

func limitNames() string {
	names := make([]string, len(limitTable))
	for i, l := range limitTable {
		names[i] = l.name
	}
	return strings.Join(names, ", ")
}

// field decodes one member.
func (f *fields) field(m *member, e *entry) {
	known := fieldNamed(m.name)
	if known == nil {
		f.bad(m, "", unknown(m.name)+"; known: "+fieldNames(func(*field) bool { return true }))
		return
	}
	known.decode(f, m, e)
}
