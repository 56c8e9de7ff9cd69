package mtls_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"tollgate/internal/certtest"
	"tollgate/internal/mtls"
)

func TestNames(t *testing.T) {
	for name, good := range map[string]bool{
		"spiffe://example.org/ns/edge/sa/envoy": true, "spiffe://example.org": true, "envoy.example.org": true, "envoy": true, "my_envoy": true,
		"": false, "*": false, "*.example.org": false, "a..b": false, ".a": false, "a.": false, "a b": false, "https://example.org/x": false,
		"spiffe://": false, "spiffe:///x": false, "spiffe://example.org/x/": false, "spiffe://example.org:443/x": false, "spiffe://u@example.org/x": false,
		"spiffe://example.org/x?y": false, "spiffe://example.org/x#y": false, "SPIFFE://example.org/x": false, "10.0.0.2:9443": false, "ünvoy": false,
	} {
		if err := mtls.CheckName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// FuzzFiles: files of strangers are read or refused, and an error holds nothing of them.
func FuzzFiles(f *testing.F) {
	dir := f.TempDir()
	ca := certtest.New(f, "test")
	pair := ca.Issue(f, certtest.Leaf{Names: []string{"tollgate"}})
	cert, key := pair.Write(f, dir, "server")
	authority := certtest.Write(f, dir, "ca.crt", ca.PEM)
	for _, seed := range [][]byte{nil, pair.Cert, pair.Key, ca.PEM, []byte("-----BEGIN CERTIFICATE-----\n"), append(append([]byte{}, pair.Cert...), ca.PEM...)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		path := dir + "/fuzzed"
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, files := range []mtls.Files{{Cert: path, Key: key, ClientCA: authority}, {Cert: cert, Key: path, ClientCA: authority}, {Cert: cert, Key: key, ClientCA: path}} {
			m, err := mtls.Load(files)
			var which *mtls.FileError
			if err == nil && (m.Life.End.IsZero() || m.AuthorityLife.End.IsZero()) || err != nil && !errors.As(err, &which) {
				t.Errorf("%v: %+v, %v", files, m, err)
			}
			if line := strings.TrimSpace(string(text)); err != nil && len(line) > 40 && strings.Contains(err.Error(), line) {
				t.Errorf("the error shows the file: %v", err)
			}
		}
	})
}

// TestLife: what ends first counts of a chain, what ends last of several authorities.
func TestLife(t *testing.T) {
	dir := t.TempDir()
	ca, other := certtest.New(t, "one"), certtest.New(t, "two")
	soon := time.Now().Add(time.Hour).Truncate(time.Second)
	pair := ca.Issue(t, certtest.Leaf{Until: soon})
	_, key := pair.Write(t, dir, "server")
	m, err := mtls.Load(mtls.Files{
		Cert: certtest.Write(t, dir, "chain", append(pair.Cert, ca.PEM...)), Key: key,
		ClientCA: certtest.Write(t, dir, "bundle", append(append([]byte{}, pair.Cert...), other.PEM...)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if !m.Life.End.Equal(soon) || !m.Life.Start.Before(time.Now()) || !m.AuthorityLife.End.After(soon) {
		t.Errorf("%+v %+v", m.Life, m.AuthorityLife)
	}
}
