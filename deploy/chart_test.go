package deploy_test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"tollgate/envoy"
	"tollgate/internal/certtest"
	"tollgate/internal/config"
)

// chart is the folder of the Helm chart.
const chart = "helm/tollgate"

// helm is the one of scripts/fetch_scale.py. A run that must have it (E2E=require)
// fails without.
func helm(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("HELM_BIN")
	if dir == "" {
		dir = "../.cache/scale/bin"
	}
	path, err := filepath.Abs(filepath.Join(dir, "helm"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if os.Getenv("E2E") == "require" {
		t.Fatal("no helm: set HELM_BIN to what `scripts/fetch_scale.py helm` prints")
	}
	t.Skip("no helm: make test builds it")
	return ""
}

// runHelm is one call of helm, with what a user has configured for helm kept out.
func runHelm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), helm(t), args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// Values by which the chart is rendered, as --set and --set-json take them.
var (
	tryIt   = []string{"--set", "simulatedEngine.enabled=true"}
	engines = []string{"--set-json", `engines=[{"address":"vllm-0.vllm:8000","weight":2},{"address":"vllm-1.vllm:8000"}]`}
	shared  = append([]string{
		"--set", "replicas=3,redis.addresses={redis:6379},redis.existingSecret=redis,redis.username=tollgate,redis.tls=true",
		"--set", "postgres.existingSecret=postgres,postgres.keys=true,engineKey.existingSecret=engine,serviceMonitor.enabled=true",
	}, engines...)
	cases = map[string][]string{
		"a try":            tryIt,
		"one gateway":      append([]string{"--set", "keys.existingSecret=keys,envoy.meter=ext_proc,envoy.concurrency=0,drain.seconds=30"}, engines...),
		"many gateways":    append([]string{"--set", "edge.tlsSecret=edge,edge.port=443,edge.type=LoadBalancer"}, shared...),
		"a service":        append([]string{"--set", "mode=service,listen.tlsSecret=service", "--set-json", `listen.clientIDs=["spiffe://cluster.local/ns/envoy/sa/gateway"]`}, shared...),
		"IPv6":             append([]string{"--set-json", `config={"listen":"[::]:8080","metrics_listen":"[::]:9464"}`}, engines...),
		"further settings": append([]string{"--set-json", `config={"rate_limit":{"requests_per_minute":60},"vllm":{"model":"m"},"trusted_proxies":1}`, "--set", "persistence.enabled=false"}, engines...),
	}
)

func TestChartLints(t *testing.T) {
	for name, values := range cases {
		if out, err := runHelm(t, append([]string{"lint", "--strict", chart}, values...)...); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// What the chart renders fits the programs: tollgate reads the configuration, and every
// name in a container is one that a program has.
func TestChartFitsThePrograms(t *testing.T) {
	for name, values := range cases {
		t.Run(name, func(t *testing.T) {
			objects := render(t, values...)
			c := configOf(t, objects["ConfigMap/tollgate"].Data["config.yaml"])
			set := objects["StatefulSet/tollgate"]
			pod := set.Spec.Template.Spec
			all := slices.Concat(pod.InitContainers, pod.Containers)
			for _, ct := range all {
				checkContainer(t, ct, &set)
			}
			serve := all[slices.IndexFunc(all, func(ct podContainer) bool { return ct.Name == "tollgate" })]
			if _, port, _ := net.SplitHostPort(c.MetricsListen); port != serve.port("metrics") {
				t.Errorf("metrics_listen is %s, the port %s", c.MetricsListen, serve.port("metrics"))
			}
			checkFiles(t, c, serve)
			if c.Service.Listen != "" {
				if _, port, _ := net.SplitHostPort(c.Service.Listen); port != serve.port("service") || len(pod.Containers) != 1 {
					t.Errorf("service.listen is %s, the port %s", c.Service.Listen, serve.port("service"))
				}
				return
			}
			e := pod.Containers[0]
			if _, port, _ := net.SplitHostPort(c.Listen); port != e.port("http") {
				t.Errorf("listen is %s, the port %s", c.Listen, e.port("http"))
			}
			if want := envoy.Args(config.BootstrapFile, c); !slices.Equal(e.Args, want) || e.WorkingDir != c.StateDir {
				t.Errorf("Envoy is started in %s with %q, want %q", e.WorkingDir, e.Args, want)
			}
			if grace := pod.Grace; grace < int(c.DrainTimeout.Seconds())+5 {
				t.Errorf("the pod is killed after %d s, requests have %s", grace, c.DrainTimeout)
			}
		})
	}
}

func TestChartRefuses(t *testing.T) {
	for values, want := range map[string]string{
		"replica=2":                           "additional properties 'replica' not allowed",
		"mode=mesh":                           "must be one of",
		"replicas=2":                          "replicas above 1 need redis.addresses",
		"replicas=2,redis.addresses={r:6379}": "one set of keys",
		"postgres.keys=true":                  "postgres.keys needs postgres.existingSecret",
		"mode=service,simulatedEngine.enabled=false":                         "mode service needs listen.tlsSecret",
		"mode=service,listen.tlsSecret=s":                                    "could not reach it",
		"simulatedEngine.enabled=false":                                      "name the engines",
		"engines[0].address=vllm:8000":                                       "simulatedEngine is the engine",
		"simulatedEngine.enabled=false,engines[0].address=vllm":              "does not match pattern",
		"redis.addresses={redis}":                                            "does not match pattern",
		"keys.existingSecret=k,postgres.keys=true,postgres.existingSecret=p": "keys are either",
	} {
		if out, err := runHelm(t, "template", "tollgate", chart, tryIt[0], tryIt[1], "--set", values); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v, without %q:\n%s", values, err, want, out)
		}
	}
}

// The values that docs/kubernetes.md shows are taken.
func TestValuesInThePageAreTaken(t *testing.T) {
	shown := regexp.MustCompile("(?s)```yml\n(.*?)```").FindAllStringSubmatch(read(t, "../docs/kubernetes.md"), -1)
	if len(shown) < 3 {
		t.Fatalf("the page shows %d values files", len(shown))
	}
	for _, block := range shown {
		file := filepath.Join(t.TempDir(), "values.yaml")
		place(t, file, block[1])
		if out, err := runHelm(t, "template", "tollgate", chart, "--values", "kustomize/values.yaml", "--values", file); err != nil {
			t.Errorf("%v\n%s\n%s", err, out, block[1])
		}
	}
}

// object is what the tests look at in a manifest.
type object struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string
	Spec     struct {
		Claims   []struct{ Metadata struct{ Name string } } `yaml:"volumeClaimTemplates"`
		Template struct {
			Spec struct {
				InitContainers []podContainer `yaml:"initContainers"`
				Containers     []podContainer
				Grace          int `yaml:"terminationGracePeriodSeconds"`
				Volumes        []struct{ Name string }
			}
		}
	}
}

type podContainer struct {
	Name, Image string
	WorkingDir  string `yaml:"workingDir"`
	Args        []string
	Ports       []struct {
		Name          string
		ContainerPort string `yaml:"containerPort"`
	}
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
	SecurityContext map[string]any `yaml:"securityContext"`
}

func (c *podContainer) port(name string) string {
	for _, p := range c.Ports {
		if p.Name == name {
			return p.ContainerPort
		}
	}
	return ""
}

// render gives the manifests by KIND/NAME, those of a release called tollgate.
func render(t *testing.T, values ...string) map[string]object {
	t.Helper()
	out, err := runHelm(t, append([]string{"template", "tollgate", chart}, values...)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	objects := map[string]object{}
	for doc := range strings.SplitSeq(out, "\n---\n") {
		var o object
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		objects[o.Kind+"/"+o.Metadata.Name] = o
	}
	return objects
}

// secrets are files that the chart mounts below /etc/tollgate.
var secrets = []string{"postgres/url", "redis/password", "engine/key", "tls/tls.crt", "tls/tls.key", "service/tls.crt", "service/tls.key", "service/ca.crt", "keys/api_keys.json"}

// configOf reads a configuration as tollgate does, which wants the files that it
// names: they are in a folder of the test's. What it returns has the pod's names.
func configOf(t *testing.T, text string) *config.Config {
	t.Helper()
	etc := t.TempDir()
	authority := certtest.New(t, "envoys")
	pair := authority.Issue(t, certtest.Leaf{Names: []string{"tollgate"}})
	for _, name := range secrets {
		text := []byte("secret")
		switch path.Base(name) {
		case "tls.crt":
			text = pair.Cert
		case "tls.key":
			text = pair.Key
		case "ca.crt":
			text = authority.PEM
		}
		place(t, filepath.Join(etc, name), string(text))
	}
	file := filepath.Join(etc, "config.yaml")
	place(t, file, strings.ReplaceAll(text, "/etc/tollgate", etc))
	c, err := config.Load(file)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, file := range []*string{
		&c.Auth.APIKeysFile, &c.VLLM.APIKeyFile, &c.Central.PostgresFile, &c.Store.Redis.PasswordFile, &c.TLS.CertFile, &c.TLS.KeyFile,
		&c.Service.TLS.CertFile, &c.Service.TLS.KeyFile, &c.Service.TLS.ClientCAFile,
	} {
		*file = strings.Replace(*file, etc, "/etc/tollgate", 1)
	}
	return c
}

// checkContainer holds a container to what every one of them must be.
func checkContainer(t *testing.T, c podContainer, set *object) {
	t.Helper()
	want := map[string]any{"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": map[string]any{"drop": []any{"ALL"}}}
	if !reflect.DeepEqual(c.SecurityContext, want) {
		t.Errorf("%s: security context %v", c.Name, c.SecurityContext)
	}
	stage := strings.TrimPrefix(strings.TrimSuffix(c.Image, ":local"), "tollgate-")
	if !strings.Contains(read(t, "Dockerfile"), " AS "+stage+"\n") {
		t.Errorf("%s: the Dockerfile has no stage for %s", c.Name, c.Image)
	}
	for _, m := range c.VolumeMounts {
		volumes := set.Spec.Template.Spec.Volumes
		known := slices.ContainsFunc(volumes, func(v struct{ Name string }) bool { return v.Name == m.Name })
		for _, claim := range set.Spec.Claims {
			known = known || claim.Metadata.Name == m.Name
		}
		if !known {
			t.Errorf("%s: no volume %s", c.Name, m.Name)
		}
	}
}

// checkFiles holds each file that the configuration names to what is mounted.
func checkFiles(t *testing.T, c *config.Config, ct podContainer) {
	t.Helper()
	for _, file := range []string{
		c.Auth.APIKeysFile, c.VLLM.APIKeyFile, c.Central.PostgresFile, c.Store.Redis.PasswordFile, c.TLS.CertFile, c.TLS.KeyFile, c.StateDir + "/x",
		c.Service.TLS.CertFile, c.Service.TLS.KeyFile, c.Service.TLS.ClientCAFile,
	} {
		mounted := file == ""
		for _, m := range ct.VolumeMounts {
			mounted = mounted || strings.HasPrefix(file, m.MountPath+"/")
		}
		if !mounted {
			t.Errorf("%s: %s is not mounted", ct.Name, file)
		}
	}
}
