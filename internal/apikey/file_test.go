package apikey_test

import (
	"bytes"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tollgate/internal/apikey"
	"tollgate/internal/limit"
)

var update = flag.Bool("update", false, "rewrite golden files")

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func day(s string) time.Time {
	at, err := time.Parse("2006-01-02", s)
	if err != nil {
		panic(err)
	}
	return at
}

func TestEveryFieldReachesTheKey(t *testing.T) {
	ring, err := apikey.Parse("keys.json", read(t, "testdata/keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	four, unlimited := int64(4), limit.Unlimited
	want := []*apikey.Key{
		{ID: "key-", User: "default", Quota: 100000, QuotaPeriod: apikey.Total, Enabled: true, Default: true},
		{
			ID: "alice-1", User: "alice", Quota: 5000000, QuotaPeriod: apikey.Month, Enabled: true,
			Models: []string{"qwen", "llama"}, Concurrent: &four, RequestsPerMinute: &unlimited,
			NotBefore: day("2026-01-01"), ExpiresAt: day("2027-01-01").Add(-time.Hour), Note: "café — team A",
		},
		{ID: "key-", User: "admin", Quota: limit.Unlimited, QuotaPeriod: apikey.Total, Enabled: true},
		{ID: "off", User: "bob", Quota: limit.Unlimited, QuotaPeriod: apikey.Total, Drain: true},
	}
	derived := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".ID" }, cmp.Comparer(func(a, b string) bool {
		return a == b || len(a) == 16 && strings.HasPrefix(a, b) || len(b) == 16 && strings.HasPrefix(b, a)
	}))
	if diff := cmp.Diff(want, ring.Keys(), derived); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if ring.Len() != 4 || ring.Enabled() != 3 || ring.HasDefault() { // alice's key is good

		t.Errorf("got %d keys, %d enabled, default %v", ring.Len(), ring.Enabled(), ring.HasDefault())
	}
}

func TestLookupHonoursStateAndTime(t *testing.T) {
	const file = `[
		{"key": "sk-on", "id": "on"},
		{"key": "sk-off", "id": "off", "enabled": false},
		{"key": "sk-window", "id": "window", "not_before": "2026-02-01T00:00:00Z", "expires_at": "2026-03-01T00:00:00Z"},
		{"key": "sk-new", "id": "rotated", "previous": [{"key_sha256": "HEX", "expires_at": "2026-02-01T00:00:00Z"}]}
	]`
	ring, err := apikey.Parse("f", []byte(strings.Replace(file, "HEX", hexDigest("sk-old"), 1)))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ secret, at, want string }{
		{"sk-on", "2026-02-01", "on"},
		{"sk-on ", "2026-02-01", ""},
		{"", "2026-02-01", ""},
		{"sk-unknown", "2026-02-01", ""},
		{"sk-off", "2026-02-01", ""},
		{"sk-window", "2026-01-31", ""},
		{"sk-window", "2026-02-01", "window"},
		{"sk-window", "2026-02-28", "window"},
		{"sk-window", "2026-03-01", ""},
		{"sk-new", "2026-03-01", "rotated"},
		{"sk-old", "2026-01-31", "rotated"},
		{"sk-old", "2026-02-01", ""},
	} {
		k, ok := ring.Lookup(c.secret, day(c.at))
		if ok != (c.want != "") || ok && k.ID != c.want {
			t.Errorf("Lookup(%q, %s): got %v, %v, want %q", c.secret, c.at, k, ok, c.want)
		}
	}
	if k, ok := ring.ByID("off"); !ok || k.Enabled {
		t.Errorf("ByID of a disabled key: got %v, %v", k, ok)
	}
	if _, ok := ring.ByID("nope"); ok {
		t.Error("ByID found a key that is not there")
	}
}

func TestDefaultKeyStaysMarkedWhileItIsRotatedAway(t *testing.T) {
	file := `[{"key": "sk-mine", "id": "a", "previous": [{"key_sha256": "` + hexDigest(apikey.DefaultSecret) + `", "expires_at": "2026-02-01T00:00:00Z"}]}]`
	ring, err := apikey.Parse("f", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := ring.Lookup(apikey.DefaultSecret, day("2026-01-01")); !ok || !k.Default {
		t.Errorf("the public secret: got %v, %v, want a default key", k, ok)
	}
	if k, ok := ring.Lookup("sk-mine", day("2026-01-01")); !ok || k.Default {
		t.Errorf("its successor: got %v, %v, want an ordinary key", k, ok)
	}
}

func TestAllMistakesOfAFileAreNamedWithoutItsValues(t *testing.T) {
	_, err := apikey.Parse("keys.json", read(t, "testdata/wrong.json"))
	var fe *apikey.FileError
	if !errors.As(err, &fe) {
		t.Fatalf("got %v, want a *FileError", err)
	}
	got := err.Error() + "\n"
	if strings.Contains(got, "sk-a") || strings.Contains(got, "sk-b") || strings.Contains(got, "secret-as") || strings.Contains(got, "just-a-key") {
		t.Errorf("the error shows a secret:\n%s", got)
	}
	const golden = "testdata/wrong.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(read(t, golden)), got); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}

func TestFilesThatAreNoKeyFile(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "f:1:1: is empty; a file without keys is written []",
		" \n\t":                                "is empty",
		"\xef\xbb\xbf":                         "is empty",
		"{}":                                   "f:1:1: must be a JSON array",
		"[\n  {\"key\": \"sk-x\"":              "f:2:17: entry 1: ends before the array is closed",
		"[] []":                                "something follows the array",
		"[]x":                                  "something follows the array",
		"[{\"key\": \"sk-x\", \"key\": 1}]":    "entry 1: a field is set twice",
		"[{\"limits\": {\"a\": 1, \"a\": 2}}]": "entry 1: a field is set twice",
		"[{\"key\": \"sk-\xff\"}]":             "f:1:14: is not UTF-8 text",
		"[{\"key\": \"sk-x\",}]":               "is not valid JSON",
		"\xff\xfe[\x00]\x00":                   "is UTF-16",
		strings.Repeat("[", 20000):             "entry 1",
		strings.Repeat(" ", apikey.MaxFile+1):  "is larger than 16 MiB",
		"[null]":                               "entry 1: must be an object",
	} {
		_, err := apikey.Parse("f", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %s", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "sk-") {
			t.Errorf("%.40q: the error shows a key: %v", text, err)
		}
	}
	for _, text := range []string{"[]", "\xef\xbb\xbf[]", "[\r\n]\r\n", `[{"key_sha256": "` + strings.ToUpper(hexDigest("x")) + `"}]`} {
		if _, err := apikey.Parse("f", []byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := apikey.Open(t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("directory: got %v", err)
	}
	if _, err := apikey.Open(filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: got %v", err)
	}
}

func TestTruncatedFilesAreErrorsThatNameALine(t *testing.T) {
	data := bytes.TrimSpace(read(t, "testdata/keys.json"))
	for i := range data {
		_, err := apikey.Parse("f", data[:i])
		var fe *apikey.FileError
		if !errors.As(err, &fe) || fe.Problems[0].Line < 1 {
			t.Fatalf("cut at %d: got %v, want a problem with a line", i, err)
		}
	}
}

func TestFlippedBitsNeverPanicAndNeverShowAKey(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	data := read(t, "testdata/keys.json")
	for range 1000 {
		flipped := bytes.Clone(data)
		flipped[r.IntN(len(flipped))] ^= 1 << r.IntN(8)
		ring, err := apikey.Parse("f", flipped)
		if (ring == nil) == (err == nil) {
			t.Fatalf("got %v and %v", ring, err)
		}
		if err != nil && (strings.Contains(err.Error(), "default-key-change") || strings.Contains(err.Error(), "2bd806")) {
			t.Fatalf("the error shows a key: %v", err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"testdata/keys.json", "testdata/wrong.json"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("[]"))
	f.Add([]byte(`[{"key":"a"},{"key":"a","previous":[{}],"limits":{"concurrent":null}}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ring, err := apikey.Parse("f", data)
		if err != nil {
			return
		}
		for _, k := range ring.Keys() {
			if got, ok := ring.ByID(k.ID); !ok || !cmp.Equal(got, k, cmpopts.EquateEmpty()) {
				t.Fatalf("key %q is not found by its id", k.ID)
			}
		}
	})
}
