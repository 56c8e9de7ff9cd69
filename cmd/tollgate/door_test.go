package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A folder of sockets that others can reach into was made by somebody else: the
// service does not start in it.
func TestServeRefusesAFolderOfSocketsThatOthersReach(t *testing.T) {
	c := newCLI(t)
	c.run(0, "keys", "add", "--user", "admin")
	dir := filepath.Join(c.dir, "state", "run")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, errs := c.run(1, "serve", "--log", "stderr"); !strings.Contains(errs, "has mode 0777") || !strings.Contains(errs, "chmod 700") {
		t.Errorf("got %s", errs)
	}
}

// The last key that opens /admin stays.
func TestTheLastAdminStaysOnTheCommandLineToo(t *testing.T) {
	c := newCLI(t)
	c.run(0, "keys", "add", "--user", "ann") // writes the file with its admin key
	for _, command := range []string{"remove", "disable"} {
		if _, errs := c.run(1, "keys", command, "admin"); !strings.Contains(errs, "last key that opens /admin") {
			t.Errorf("%s: %s", command, errs)
		}
	}
	c.run(0, "keys", "add", "--user", "admin", "--id", "second")
	c.run(0, "keys", "remove", "admin")
}

// Short secrets and files that others can read are said by the check, too.
func TestConfigCheckSaysWhatIsTooOpen(t *testing.T) {
	c := newCLI(t)
	path := c.write("keys.json", `[{"key":"sk-short","user":"admin","id":"root"}]`)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	config := c.write("c.yaml", "auth: {api_keys_file: "+path+"}\n")
	_, errs := c.run(0, "config", "check", "--config", config)
	contains(t, "warnings", errs, "key root has a secret of fewer than 16 characters", "mode 0644", "chmod 600")
	if strings.Contains(errs, "sk-short") {
		t.Errorf("the secret is shown: %s", errs)
	}
}
