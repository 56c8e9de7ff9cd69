// Package deploy_test holds docker-compose.yaml to what it refers to; no
// container is started.
package deploy_test

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"tollgate/envoy"
	"tollgate/internal/config"
)

type service struct {
	Image       string
	Build       *struct{ Context, Dockerfile, Target string }
	User        string
	WorkingDir  string `yaml:"working_dir"`
	Entrypoint  []string
	Command     []string
	Volumes     []string
	Ports       []string
	Profiles    []string
	DependsOn   any `yaml:"depends_on"`
	Healthcheck struct{ Test []string }
	Environment map[string]string
}

type composeFile struct {
	Services map[string]service
	Volumes  map[string]any
}

const home = "/srv/tollgate"

func compose(t *testing.T) composeFile {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join("..", "docker-compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var f composeFile // duplicates: what overrides a merge key counts as one
	if err := yaml.UnmarshalWithOptions(doc, &f, yaml.AllowDuplicateMapKey()); err != nil {
		t.Fatal(err)
	}
	if len(f.Services) < 7 {
		t.Fatalf("services: got %d", len(f.Services))
	}
	return f
}

func settings(t *testing.T) *config.Config {
	t.Helper()
	c, err := config.Load(filepath.Join("compose", "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEveryFileAndVolumeExists(t *testing.T) {
	f := compose(t)
	dockerfile := read(t, "Dockerfile")
	for name, s := range f.Services {
		for _, v := range s.Volumes {
			v = strings.NewReplacer("${TOLLGATE_CONFIG:-", "", "}", "").Replace(v)
			from, _, _ := strings.Cut(v, ":")
			if !strings.HasPrefix(from, ".") {
				if _, ok := f.Volumes[from]; !ok {
					t.Errorf("%s: volume %s is not declared", name, from)
				}
				continue
			}
			if _, err := os.Stat(filepath.Join("..", from)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if s.Build == nil {
			continue
		}
		if s.Build.Dockerfile != "deploy/Dockerfile" || !strings.Contains(dockerfile, " AS "+s.Build.Target+"\n") {
			t.Errorf("%s: no stage %s in %s", name, s.Build.Target, s.Build.Dockerfile)
		}
	}
	for _, source := range regexp.MustCompile(`(?m)go build .* (\./\S+)`).FindAllStringSubmatch(strings.ReplaceAll(dockerfile, "&& \\\n", "\n"), -1) {
		if _, err := os.Stat(filepath.Join("..", strings.TrimSuffix(source[1], " &&"))); err != nil {
			t.Errorf("Dockerfile builds %s: %v", source[1], err)
		}
	}
}

func TestServicesShareTheSockets(t *testing.T) {
	f, c := compose(t), settings(t)
	state := filepath.Join(home, c.StateDir)
	for _, name := range []string{"tollgate", "envoy", "launcher", "bootstrap"} {
		s := f.Services[name]
		if !slices.Contains(s.Volumes, "state:"+state) {
			t.Errorf("%s: no volume on %s: %v", name, state, s.Volumes)
		}
		if s.User != f.Services["tollgate"].User {
			t.Errorf("%s: runs as %s, which may not open the sockets", name, s.User)
		}
		if name != "envoy" && (s.WorkingDir != home || s.Environment["CONFIG_FILE"] != "/etc/tollgate/config.yaml" ||
			!slices.Contains(s.Volumes, "${TOLLGATE_CONFIG:-./deploy/compose/config.yaml}:/etc/tollgate/config.yaml:ro")) {
			t.Errorf("%s: does not read the configuration", name)
		}
	}
	if got := f.Services["envoy"].WorkingDir; got != state {
		t.Errorf("envoy: runs in %s, the sockets are relative to %s", got, state)
	}
	if keys := filepath.Join(home, filepath.Dir(c.Auth.APIKeysFile)); !slices.Contains(f.Services["tollgate"].Volumes, "keys:"+keys) {
		t.Errorf("keys are not kept: no volume on %s", keys)
	}
}

func TestPortsAreTheConfiguredOnes(t *testing.T) {
	f, c := compose(t), settings(t)
	for addr, where := range map[string]string{
		c.Listen:        strings.Join(f.Services["envoy"].Ports, " "),
		c.MetricsListen: strings.Join(f.Services["tollgate"].Healthcheck.Test, " ") + read(t, "compose/prometheus.yml"),
	} {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		if host != "0.0.0.0" {
			t.Errorf("%s is not reachable from other containers", addr)
		}
		if !strings.Contains(where, ":"+port) {
			t.Errorf("port %s is not in %q", port, where)
		}
	}
	if !strings.Contains(read(t, "compose/prometheus.yml"), "tollgate:") || f.Services[c.VLLM.Host].Image == "" {
		t.Error("a host name is no service")
	}
	for name, s := range f.Services {
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s publishes %s to everybody", name, p)
			}
		}
	}
	redis, _, err := net.SplitHostPort(c.Store.Redis.Addresses[0])
	if err != nil || f.Services[redis].Image == "" {
		t.Errorf("redis: %v, no service %s", err, redis)
	}
	p, err := envoy.ParamsFor(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := envoy.Render(p); err != nil {
		t.Error(err)
	}
}

// A command is known by its declaration in the sources of its binary.
func TestCommandsExist(t *testing.T) {
	f := compose(t)
	sources := func(dir string) string {
		files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no sources in %s: %v", dir, err)
		}
		var all strings.Builder
		for _, file := range files {
			all.WriteString(read(t, file))
		}
		return all.String()
	}
	tollgate, launcher := sources("cmd/tollgate"), sources("launcher")
	known := func(binary, source, command string) {
		t.Helper()
		field := regexp.MustCompile("(?mi)^\\s*" + command + "\\s+\\w+\\s+`cmd:\"\"")
		if !field.MatchString(source) {
			t.Errorf("%s has no command %s", binary, command)
		}
	}
	known("tollgate", tollgate, f.Services["tollgate"].Command[0])
	known("launcher", launcher, f.Services["launcher"].Command[0])
	if got := f.Services["bootstrap"].Command; !slices.Equal(got, []string{"envoy", "config", "--write", "--meter", "module"}) {
		t.Errorf("bootstrap runs %s", got)
	}
	known("tollgate", tollgate, "envoy")
	known("tollgate", tollgate, "config")
	if log := f.Services["tollgate"].Command; !slices.Equal(log[1:], []string{"--log", "stderr"}) || !strings.Contains(tollgate, `enum:"file,stderr"`) {
		t.Errorf("tollgate serve does not take %v", log[1:])
	}
	e := f.Services["envoy"]
	if want := "ARG ENVOY_VERSION=" + envoy.Version + "\n"; !strings.Contains(read(t, "Dockerfile"), want) {
		t.Errorf("Dockerfile does not say %s", want)
	}
	args := envoy.Args(config.BootstrapFile, settings(t))
	for i, arg := range e.Command {
		if !slices.Contains(args, arg) {
			t.Errorf("envoy: argument %d, %s, is not what envoy.Args gives: %v", i, arg, args)
		}
	}
}
