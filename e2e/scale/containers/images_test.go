//go:build scale

package containers

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// allowed are the files and folders that deploy/Dockerfile adds to its bases.
var allowed = map[string]*regexp.Regexp{
	"tollgate": regexp.MustCompile(`^(usr(/local(/(bin|lib))?)?|usr/local/bin/tollgate|usr/local/lib/tollgate(/libtollgate_meter-[\w.-]+\.so)?|srv(/tollgate(/(state(/run)?|logs|keys))?)?)$`),
	"envoy":    regexp.MustCompile(`^(usr(/local(/(bin|lib))?)?|usr/local/bin/tollgate|usr/local/lib/tollgate(/libtollgate_meter-[\w.-]+\.so)?|srv(/tollgate(/(state(/run)?|logs|keys))?)?)$`),
	"launcher": regexp.MustCompile(`^(usr(/local(/(bin|lib))?)?|usr/local/bin/launcher|usr/local/lib/tollgate(/libtollgate_meter-[\w.-]+\.so)?|srv(/tollgate(/(state(/run)?|logs|keys))?)?)$`),
}

// named are their names in docker-compose.yaml.
var named = map[string]string{"tollgate": "tollgate:local", "envoy": "tollgate-envoy:local", "launcher": "tollgate-launcher:local"}

// neverIn is what no file of an image may hold: private keys, keys of the gateway, and
// the folder that the build ran in.
var neverIn = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----\n|\bsk-[0-9A-Za-z]{32}\b|/src/(cmd|internal|launcher|envoy)/`)

// TestImagesHoldNothingElse lists what each image has beyond its base, looks into it,
// and sees that no image runs as root.
func TestImagesHoldNothingElse(t *testing.T) {
	e := shared
	e.images(t)
	text, err := os.ReadFile(filepath.Join(root, "deploy/Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	for target, fits := range allowed {
		name := named[target]
		var config []struct {
			Config struct {
				User string
				Env  []string
			}
		}
		if err := json.Unmarshal([]byte(e.do(t, "docker", "image", "inspect", name)), &config); err != nil || len(config) != 1 {
			t.Fatalf("inspect %s: %v", name, err)
		}
		if user := config[0].Config.User; user != "10001:10001" {
			t.Errorf("%s runs as %q", name, user)
		}
		for _, env := range config[0].Config.Env {
			if n, _, _ := strings.Cut(env, "="); n != "PATH" && n != "ENVOY_DYNAMIC_MODULES_SEARCH_PATH" {
				t.Errorf("%s has %s in its environment", name, n)
			}
		}
		in, base := e.files(t, name), e.files(t, baseOf(t, string(text), target))
		found := 0
		for file, content := range in {
			if before, ok := base[file]; ok && bytes.Equal(before, content) {
				continue
			}
			if found++; !fits.MatchString(file) {
				t.Errorf("%s has %s, which nobody has asked for", name, file)
			}
			if secret := neverIn.Find(content); secret != nil {
				t.Errorf("%s: %s holds %.12q", name, file, secret)
			}
		}
		if found < 7 {
			t.Errorf("%s: only %d files and folders of ours", name, found)
		}
	}
}

// baseOf is the image that a target of the Dockerfile begins with.
func baseOf(t *testing.T, dockerfile, target string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^FROM (\S+) AS ` + target + `$`).FindStringSubmatch(dockerfile)
	if m == nil {
		t.Fatalf("there is no target %s", target)
	}
	return os.Expand(m[1], func(name string) string {
		arg := regexp.MustCompile(`(?m)^ARG ` + name + `=(\S+)$`).FindStringSubmatch(dockerfile)
		if arg == nil {
			t.Fatalf("%s has no default", name)
		}
		return arg[1]
	})
}

// files are the content of an image by name; a folder has none.
func (e *engine) files(t *testing.T, image string) map[string][]byte {
	t.Helper()
	id := strings.TrimSpace(e.do(t, "docker", "create", image, "true"))
	defer e.do(t, "docker", "rm", id)
	in, out := tar.NewReader(strings.NewReader(e.do(t, "docker", "export", id))), map[string][]byte{}
	for {
		head, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		out[path.Clean(head.Name)] = content
	}
}
