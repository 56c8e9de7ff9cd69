package apikey_test

import (
	"encoding/hex"
	"os"
	"testing"

	"github.com/go-json-experiment/json"
	"go.uber.org/goleak"

	"tollgate/internal/apikey"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func hexDigest(secret string) string {
	d := apikey.Digest(secret)
	return hex.EncodeToString(d[:])
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fields reads a JSON object.
func fields(text string) apikey.Fields {
	var f apikey.Fields
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		panic(err)
	}
	return f
}
