package apikey

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// A field that is changed and not compared would never reach a running service, nor
// the audit: each field must be among those that make two keys differ.
func TestAChangeOfAnyFieldIsAChange(t *testing.T) {
	other := map[string]string{
		"user": `"bob"`, "enabled": `true`, "drain": `true`, "quota": `7`, "quota_period": `"day"`, "models": `["m"]`, "limits": `{"concurrent":1}`,
		"trust_end_user": `true`, "not_before": `"2026-01-01T00:00:00Z"`, "expires_at": `"2099-01-01T00:00:00Z"`, "note": `"n"`,
	}
	for _, f := range fieldTable {
		value, known := other[f.name]
		switch {
		case !f.set || f.name == "id":
			continue
		case !known:
			t.Errorf("the table of this test lacks %s", f.name)
			continue
		}
		before, err := parseFile("keys.json", []byte(`[{"key":"sk-aaaaaaaaaaaaaaaaaaaaaaaa","id":"a","user":"ann","enabled":false},{"key":"sk-bbbbbbbbbbbbbbbbbbbbbbbb","id":"r","user":"admin"}]`))
		if err != nil {
			t.Fatal(err)
		}
		record := before.entries[0].record
		if err := before.Update("a", Fields{f.name: jsontext.Value(value)}); err != nil {
			t.Errorf("%s: %v", f.name, err)
			continue
		}
		if before.edited == 0 || before.entries[0].record.equal(&record) {
			t.Errorf("a change of %s is none", f.name)
		}
	}
}
