package audit_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/audit"
)

func chain(n int) []audit.Entry {
	out := make([]audit.Entry, n)
	var hash string
	for i := range out {
		out[i] = audit.Entry{
			At: time.Unix(int64(i), 123456789), Gateway: "one", Editor: audit.Editor{Who: "admin", From: "10.0.0.1"},
			Action: "key.change", Target: fmt.Sprint("key-", i), Before: json.RawMessage(`{"quota":1}`), After: json.RawMessage(`{"quota":2}`),
		}
		out[i].Seal(int64(i), hash)
		hash = out[i].Hash
	}
	return out
}

func check(entries []audit.Entry) error {
	var c audit.Chain
	for i := range entries {
		if err := c.Check(&entries[i]); err != nil {
			return err
		}
	}
	return nil
}

// Any field of any entry that is altered is found, and so is one that is missing,
// doubled or moved.
func TestAnAlteredChainIsBroken(t *testing.T) {
	if err := check(chain(5)); err != nil {
		t.Fatalf("a good chain: %v", err)
	}
	for name, spoil := range map[string]func(e *audit.Entry){
		"number":  func(e *audit.Entry) { e.Seq++ },
		"time":    func(e *audit.Entry) { e.At = e.At.Add(time.Microsecond) },
		"gateway": func(e *audit.Entry) { e.Gateway = "two" },
		"who":     func(e *audit.Entry) { e.Who = "eve" },
		"from":    func(e *audit.Entry) { e.From = "" },
		"action":  func(e *audit.Entry) { e.Action = "key.add" },
		"target":  func(e *audit.Entry) { e.Target += "x" },
		"before":  func(e *audit.Entry) { e.Before = nil },
		"after":   func(e *audit.Entry) { e.After = json.RawMessage(`{"quota":3}`) },
		"moved":   func(e *audit.Entry) { e.Action, e.Target = e.Action+e.Target[:1], e.Target[1:] },
		"prev":    func(e *audit.Entry) { e.Prev = "" },
		"hash":    func(e *audit.Entry) { e.Hash = "00" + e.Hash[2:] },
	} {
		for i := 1; i < 5; i++ {
			entries := chain(5)
			spoil(&entries[i])
			if err := check(entries); !errors.Is(err, audit.ErrBroken) {
				t.Errorf("%s of entry %d altered: %v", name, i+1, err)
			}
		}
	}
	entries := chain(5)
	for name, spoiled := range map[string][]audit.Entry{
		"missing": append(append([]audit.Entry{}, entries[:2]...), entries[3:]...),
		"headed":  entries[1:],
		"doubled": {entries[0], entries[1], entries[1]},
		"swapped": {entries[0], entries[2], entries[1]},
	} {
		if err := check(spoiled); !errors.Is(err, audit.ErrBroken) {
			t.Errorf("an entry is %s: %v", name, err)
		}
	}
}

func TestChanges(t *testing.T) {
	states := func(kv ...string) map[string]json.RawMessage {
		m := map[string]json.RawMessage{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = json.RawMessage(kv[i+1])
		}
		return m
	}
	got := audit.Changes("key",
		states("ann", `{"user":"ann","quota":1,"note":"x"}`, "bob", `{"user":"bob"}`, "eve", `{"user":"eve"}`),
		states("ann", `{"user":"ann","quota":2}`, "bob", `{"user":"bob"}`, "new", `{"user":"n"}`))
	want := []audit.Entry{
		{Action: "key.change", Target: "ann", Before: json.RawMessage(`{"note":"x","quota":1}`), After: json.RawMessage(`{"quota":2}`)},
		{Action: "key.remove", Target: "eve", Before: json.RawMessage(`{"user":"eve"}`)},
		{Action: "key.add", Target: "new", After: json.RawMessage(`{"user":"n"}`)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if got := audit.Changes("key", nil, nil); len(got) != 0 {
		t.Errorf("changes of nothing: %v", got)
	}
}
