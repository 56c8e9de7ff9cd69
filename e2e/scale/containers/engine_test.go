//go:build scale

package containers

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"tollgate/e2e/stack"
)

// root is the folder of the module, seen from here.
const root = "../../.."

// standIns are the kinds of scripts/base_images.py, by the name of the image that
// they stand for. Of Grafana there is none: it is not run here.
var standIns = map[string]string{
	"alpine": "busybox", "golang": "go", "rust": "rust", "envoyproxy/envoy": "envoy", "redis": "redis", "prom/prometheus": "prometheus", "grafana/grafana": "",
}

// engine is a Docker Engine of this package's own.
type engine struct {
	bin    string // folder of the programs
	socket string
	log    string
	server *exec.Cmd
	ended  chan struct{}
}

// shared serves all tests of the package; TestMain starts and stops it.
var shared *engine

func TestMain(m *testing.M) {
	code := 1
	defer func() { os.Exit(code) }() //nolint:forbidigo // what a main of tests is for
	dir, err := os.MkdirTemp("", "tollgate-engine-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer os.RemoveAll(dir)
	shared, err = startEngine(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "start the engine:", err)
		return
	}
	defer shared.stop()
	code = m.Run()
	stack.Clean()
}

// startEngine starts an engine whose files are all in dir.
func startEngine(dir string) (*engine, error) {
	if os.Geteuid() != 0 || os.Getenv("TOLLGATE_NETNS") == "" {
		return nil, errors.New("it needs root, and a network namespace that is not the machine's: use make scale, or scripts/netns.sh")
	}
	out, err := exec.Command("python3", filepath.Join(root, "scripts/fetch_docker.py")).Output()
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	e := &engine{bin: strings.TrimSpace(string(out)), socket: filepath.Join(dir, "docker.sock"), log: filepath.Join(dir, "dockerd.log"), ended: make(chan struct{})}
	// One that runs already, for a person who tries a test often: it keeps the base images of
	// its first run.
	if running := os.Getenv("ENGINE_SOCKET"); running != "" {
		e.socket = running
		return e, nil
	}
	log, err := os.Create(e.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	e.server = exec.Command(filepath.Join(e.bin, "dockerd"), "--host", "unix://"+e.socket, "--data-root", filepath.Join(dir, "data"),
		"--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "dockerd.pid"), "--bip", "172.31.255.1/24",
		"--default-address-pool", "base=172.31.0.0/17,size=24", "--default-ulimit", "nofile=10000:10000")
	e.server.Stdout, e.server.Stderr = log, log
	// Not in the group that a Ctrl-C goes to: it must be there to stop the containers.
	e.server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := e.server.Start(); err != nil {
		return nil, err
	}
	go func() { _ = e.server.Wait(); close(e.ended) }()
	for limit := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err := e.run("docker", "version"); err == nil {
			return e, nil
		}
		select {
		case <-e.ended:
		default:
			if time.Now().Before(limit) {
				continue
			}
		}
		said, _ := os.ReadFile(e.log)
		e.stop()
		return nil, fmt.Errorf("it does not answer:\n%s", said)
	}
}

func (e *engine) stop() {
	if e.server == nil {
		return
	}
	_ = e.server.Process.Signal(syscall.SIGTERM)
	select {
	case <-e.ended:
	case <-time.After(time.Minute):
		_ = e.server.Process.Kill()
		<-e.ended
	}
}

// run runs docker or docker-compose in the module's folder, and returns what it
// printed; an error has what it said.
func (e *engine) run(program string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(e.bin, program), args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+e.socket, "DOCKER_BUILDKIT=1", "COMPOSE_DOCKER_CLI_BUILD=1", "BUILDKIT_PROGRESS=plain",
		"PATH="+e.bin+":"+os.Getenv("PATH"))
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s%s", program, strings.Join(args, " "), err, last(out.String()), last(said.String()))
	}
	return out.String(), nil
}

// last is the end of a long text.
func last(text string) string { return text[max(0, len(text)-4000):] }

// do is run for what must not fail.
func (e *engine) do(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := e.run(program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// images makes the stand-ins and builds all images of deploy/Dockerfile, as often as
// it is called: the engine keeps them.
func (e *engine) images(t *testing.T) {
	t.Helper()
	var missing []string
	for _, name := range bases(t) {
		short, _, _ := strings.Cut(name, ":")
		kind, known := standIns[short]
		if !known {
			t.Errorf("%s: there is no stand-in of this image", name)
		}
		if kind == "" {
			continue
		}
		if _, err := e.run("docker", "image", "inspect", name); err != nil {
			missing = append(missing, name+"="+kind)
		}
	}
	if len(missing) > 0 {
		cmd := exec.Command("python3", append([]string{filepath.Join(root, "scripts/base_images.py")}, missing...)...)
		cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+e.socket)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("base images: %v\n%s", err, out)
		}
	}
	began := time.Now()
	e.do(t, "docker-compose", "build")
	t.Logf("the images are built after %v", time.Since(began).Round(time.Second))
}

// bases are the images that deploy/Dockerfile and docker-compose.yaml begin with.
func bases(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy/Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	defaults := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^ARG (\w+)=(\S+)$`).FindAllStringSubmatch(string(text), -1) {
		defaults[m[1]] = m[2]
	}
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^FROM (\S+)`).FindAllStringSubmatch(string(text), -1) {
		found[os.Expand(m[1], func(name string) string { return defaults[name] })] = true
	}
	if text, err = os.ReadFile(filepath.Join(root, "docker-compose.yaml")); err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct{ Image string }
	}
	if err := yaml.UnmarshalWithOptions(text, &file, yaml.AllowDuplicateMapKey()); err != nil {
		t.Fatal(err)
	}
	for _, s := range file.Services {
		if !strings.HasSuffix(s.Image, ":local") {
			found[s.Image] = true
		}
	}
	var names []string
	for name := range found {
		names = append(names, name)
	}
	return names
}

// address is that of a container, as this namespace reaches it.
func (e *engine) address(t *testing.T, container string) string {
	t.Helper()
	ip := strings.TrimSpace(e.do(t, "docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container))
	if net.ParseIP(ip) == nil {
		t.Fatalf("%s has no address: %q", container, ip)
	}
	return ip
}
