//go:build scale

package containers

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"tollgate/e2e/kube"
	"tollgate/e2e/stack"
)

// manifest is what a kubelet does for a pod, as far as ours ask for it.
type manifest struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string
	Spec     struct {
		Template struct{ Spec podSpec }
	}
}

type podSpec struct {
	Grace           int `yaml:"terminationGracePeriodSeconds"`
	SecurityContext struct {
		RunAsUser  int `yaml:"runAsUser"`
		RunAsGroup int `yaml:"runAsGroup"`
		FSGroup    int `yaml:"fsGroup"`
	} `yaml:"securityContext"`
	InitContainers []podContainer `yaml:"initContainers"`
	Containers     []podContainer
	Volumes        []struct {
		Name      string
		ConfigMap *struct{ Name string } `yaml:"configMap"`
		Secret    *struct {
			Name string `yaml:"secretName"`
		}
	}
}

type podContainer struct {
	Name, Image   string
	Command, Args []string
	WorkingDir    string `yaml:"workingDir"`
	RestartPolicy string `yaml:"restartPolicy"`
	Env           []struct{ Name, Value string }
	Ports         []struct {
		Name          string
		ContainerPort string `yaml:"containerPort"`
	}
	StartupProbe    *probe `yaml:"startupProbe"`
	ReadinessProbe  *probe `yaml:"readinessProbe"`
	LivenessProbe   *probe `yaml:"livenessProbe"`
	SecurityContext struct {
		ReadOnly bool `yaml:"readOnlyRootFilesystem"`
	} `yaml:"securityContext"`
	Resources    struct{ Limits struct{ Memory string } }
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
	Lifecycle struct {
		PreStop struct {
			Exec  struct{ Command []string }
			Sleep struct{ Seconds int }
		} `yaml:"preStop"`
	}
}

type probe struct {
	HTTPGet   *struct{ Path, Port string } `yaml:"httpGet"`
	TCPSocket *struct{ Port string }       `yaml:"tcpSocket"`
}

// pod is one that runs.
type pod struct {
	e       *engine
	spec    podSpec
	volumes map[string]string // folders, by the name of the volume
	ip      string
	running []podContainer // in the order of their start
}

// rendered is what the chart makes of values, by kind.
func rendered(t *testing.T, values ...string) map[string]manifest {
	t.Helper()
	out, err := exec.Command(kube.Tool(t, "helm"), append([]string{"template", "tollgate", filepath.Join(root, "deploy/helm/tollgate")}, values...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	all := map[string]manifest{}
	for doc := range strings.SplitSeq(string(out), "\n---\n") {
		var m manifest
		if err := yaml.Unmarshal([]byte(doc), &m); err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		all[m.Kind] = m
	}
	return all
}

// secrets are files, by the name of the Secret and their own.
type secrets map[string]map[string][]byte

// startPod starts the pod of the chart's StatefulSet on a claim and waits until it is
// ready. The test's end removes what is left of it.
func startPod(t *testing.T, e *engine, claim string, s secrets, values ...string) *pod {
	t.Helper()
	all := rendered(t, values...)
	p := &pod{e: e, spec: all["StatefulSet"].Spec.Template.Spec, volumes: map[string]string{"state": claim}}
	for _, v := range p.spec.Volumes {
		dir := t.TempDir()
		if v.ConfigMap != nil {
			for name, text := range all["ConfigMap"].Data {
				p.put(t, filepath.Join(dir, name), []byte(text), 0o644)
			}
		}
		if v.Secret != nil {
			for name, text := range s[v.Secret.Name] {
				p.put(t, filepath.Join(dir, name), text, 0o440)
			}
		}
		p.volumes[v.Name] = dir
	}
	p.own(t, claim)
	e.do(t, "docker", "run", "--detach", "--name", "pod", "alpine:3.22", "sleep", "1000000")
	t.Cleanup(func() { p.remove(t) })
	p.ip = e.address(t, "pod")
	began := time.Now()
	for _, c := range slices.Concat(p.spec.InitContainers, p.spec.Containers) {
		keeps := c.RestartPolicy == "Always" || slices.ContainsFunc(p.spec.Containers, func(m podContainer) bool { return m.Name == c.Name })
		if !keeps {
			e.do(t, "docker", p.args(c, "--network", "container:pod", "--rm")...)
			continue
		}
		e.do(t, "docker", p.args(c, "--network", "container:pod", "--detach")...)
		p.running = append(p.running, c)
		p.until(t, c, "started", c.StartupProbe)
	}
	for _, c := range p.running {
		p.until(t, c, "ready", c.ReadinessProbe)
		p.until(t, c, "live", c.LivenessProbe)
	}
	t.Logf("the pod is ready after %v", time.Since(began).Round(100*time.Millisecond))
	return p
}

// put writes a file of a volume for the pod's group.
func (p *pod) put(t *testing.T, path string, text []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, text, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 0, p.spec.SecurityContext.FSGroup); err != nil {
		t.Fatal(err)
	}
}

// own gives the root of a volume to the pod's group, as fsGroup with OnRootMismatch
// does: not what is below it, once it is right.
func (p *pod) own(t *testing.T, dir string) {
	t.Helper()
	if err := os.Chown(dir, 0, p.spec.SecurityContext.FSGroup); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o770|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
}

// args are those of docker for a container.
func (p *pod) args(c podContainer, more ...string) []string {
	s := p.spec.SecurityContext
	args := append([]string{
		"run", "--name", "pod-" + c.Name, "--user", fmt.Sprintf("%d:%d", s.RunAsUser, s.RunAsGroup), "--group-add", fmt.Sprint(s.FSGroup),
		"--cap-drop", "ALL", "--security-opt", "no-new-privileges",
	}, more...)
	if c.SecurityContext.ReadOnly {
		args = append(args, "--read-only")
	}
	if m := c.Resources.Limits.Memory; m != "" {
		args = append(args, "--memory", strings.ToLower(strings.TrimSuffix(m, "i")))
	}
	for _, m := range c.VolumeMounts {
		v := p.volumes[m.Name] + ":" + m.MountPath
		if m.ReadOnly {
			v += ":ro"
		}
		args = append(args, "--volume", v)
	}
	for _, v := range c.Env {
		args = append(args, "--env", v.Name+"="+v.Value)
	}
	if c.WorkingDir != "" {
		args = append(args, "--workdir", c.WorkingDir)
	}
	if len(c.Command) > 0 {
		args = append(args, "--entrypoint", c.Command[0])
	}
	args = append(args, c.Image)
	return append(append(args, c.Command[min(1, len(c.Command)):]...), c.Args...)
}

// until waits for a probe, where there is one.
func (p *pod) until(t *testing.T, c podContainer, what string, pr *probe) {
	t.Helper()
	if pr == nil {
		return
	}
	stack.Eventually(t, time.Minute, c.Name+" to be "+what, func() bool {
		if pr.TCPSocket != nil {
			conn, err := net.DialTimeout("tcp", net.JoinHostPort(p.ip, c.port(pr.TCPSocket.Port)), time.Second)
			if err == nil {
				_ = conn.Close()
			}
			return err == nil
		}
		resp, err := http.Get("http://" + net.JoinHostPort(p.ip, c.port(pr.HTTPGet.Port)) + pr.HTTPGet.Path)
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

func (c *podContainer) port(name string) string {
	for _, p := range c.Ports {
		if p.Name == name {
			return p.ContainerPort
		}
	}
	return name
}

// exec runs a command in a container of the pod.
func (p *pod) exec(t *testing.T, container string, command ...string) string {
	t.Helper()
	return p.e.do(t, "docker", append([]string{"exec", "pod-" + container}, command...)...)
}

// stop deletes the pod: the hook and SIGTERM for its containers, then the sidecars in
// reverse, all within the grace period.
func (p *pod) stop(t *testing.T) {
	t.Helper()
	end := time.Now().Add(time.Duration(p.spec.Grace) * time.Second)
	for _, c := range slices.Backward(p.running) { // the sidecars were started first
		if hook := c.Lifecycle.PreStop.Exec.Command; len(hook) > 0 {
			began := time.Now()
			p.exec(t, c.Name, hook...)
			t.Logf("%s: the preStop hook took %v", c.Name, time.Since(began).Round(100*time.Millisecond))
		}
		time.Sleep(time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second)
		left := int(time.Until(end).Seconds())
		p.e.do(t, "docker", "stop", "--time", fmt.Sprint(max(2, left)), "pod-"+c.Name)
		if code := strings.TrimSpace(p.e.do(t, "docker", "inspect", "--format", "{{.State.ExitCode}}", "pod-"+c.Name)); code != "0" {
			t.Errorf("%s ended with %s\n%s", c.Name, code, p.logs(c.Name))
		}
	}
	p.remove(t)
}

func (p *pod) logs(container string) string {
	out, _ := exec.Command(filepath.Join(p.e.bin, "docker"), "--host", "unix://"+p.e.socket, "logs", "--tail", "12", "pod-"+container).CombinedOutput()
	return string(out)
}

// remove removes all that is left of the pod.
func (p *pod) remove(t *testing.T) {
	t.Helper()
	for _, c := range p.running {
		if t.Failed() {
			t.Logf("%s:\n%s", c.Name, p.logs(c.Name))
		}
	}
	for _, c := range append(p.running, podContainer{Name: ""}) {
		name := strings.TrimSuffix("pod-"+c.Name, "-")
		_, _ = p.e.run("docker", "rm", "--force", name)
	}
	p.running = nil
}
