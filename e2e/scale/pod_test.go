//go:build scale

package scale_test

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tollgate/e2e/kube"
	"tollgate/e2e/stack"
)

// names are what the cluster's DNS would say.
const names = `127.0.0.1 localhost envoy-gateway.envoy-gateway-system.svc.cluster.local envoy-gateway
10.9.9.8 tollgate.tollgate.svc.cluster.local
10.9.9.9 vllm.tollgate.svc.cluster.local
10.9.9.7 vllm-epp.tollgate.svc.cluster.local
`

// pod is what a kubelet would start of a Deployment: one container, its arguments and its
// files. The rest of it is not run.
type pod struct {
	Args  []string
	Env   []string
	Hosts string            // more lines of /etc/hosts
	Files map[string]string // where it is mounted: a folder of the test
}

// deployment is what is read of a Deployment.
type deployment struct {
	Spec struct {
		Template struct {
			Spec struct {
				Containers []struct {
					Name string
					Args []string
					Env  []struct {
						Name, Value string
						ValueFrom   struct {
							FieldRef struct{ FieldPath string }
						}
					}
					VolumeMounts []struct{ Name, MountPath string }
				}
				Volumes []struct {
					Name      string
					Secret    *struct{ SecretName string }
					ConfigMap *struct {
						Name  string
						Items []struct{ Key, Path string }
					}
				}
			}
		}
	}
}

// podOf reads a container of a Deployment from the API server, with the files that its
// volumes bring.
func podOf(t *testing.T, c *kube.Cluster, namespace, name, container string) pod {
	t.Helper()
	var d deployment
	if err := json.Unmarshal([]byte(c.Kubectl("", "-n", namespace, "get", "deployment", name, "-o", "json")), &d); err != nil {
		t.Fatal(err)
	}
	p := pod{Files: map[string]string{}}
	fields := map[string]string{"metadata.namespace": namespace, "metadata.name": name + "-1"}
	for _, of := range d.Spec.Template.Spec.Containers {
		if of.Name != container {
			continue
		}
		// A name that ends in a dot is not looked up in /etc/hosts.
		expand := []string{".svc.cluster.local.", ".svc.cluster.local"}
		for _, e := range of.Env {
			value := e.Value + fields[e.ValueFrom.FieldRef.FieldPath]
			p.Env = append(p.Env, e.Name+"="+value)
			expand = append(expand, "$("+e.Name+")", value)
		}
		for _, arg := range of.Args {
			p.Args = append(p.Args, strings.NewReplacer(expand...).Replace(arg))
		}
		for _, at := range of.VolumeMounts {
			for _, v := range d.Spec.Template.Spec.Volumes {
				switch dir := t.TempDir(); {
				case v.Name != at.Name:
				case v.Secret != nil:
					p.Files[at.MountPath] = dir
					files(t, c, namespace, "secret/"+v.Secret.SecretName, dir)
				case v.ConfigMap != nil:
					p.Files[at.MountPath] = dir
					files(t, c, namespace, "configmap/"+v.ConfigMap.Name, dir)
					for _, item := range v.ConfigMap.Items {
						if err := os.Rename(filepath.Join(dir, item.Key), filepath.Join(dir, item.Path)); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		}
	}
	if p.Args == nil {
		t.Fatalf("deployment %s/%s has no container %s with arguments", namespace, name, container)
	}
	return p
}

// files writes what is in a Secret or a ConfigMap.
func files(t *testing.T, c *kube.Cluster, namespace, object, dir string) {
	t.Helper()
	var v struct{ Data map[string]string }
	if err := json.Unmarshal([]byte(c.Kubectl("", "-n", namespace, "get", object, "-o", "json")), &v); err != nil {
		t.Fatal(err)
	}
	for name, text := range v.Data {
		if strings.HasPrefix(object, "secret/") {
			plain, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			text = string(plain)
		}
		write(t, filepath.Join(dir, name), text)
	}
}

// start runs a program as the container's, with its files where it expects them, in a
// mount namespace of its own. The names of the cluster are in its /etc/hosts.
func (p pod) start(t *testing.T, name, program string) *stack.Process {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "hosts"), names+p.Hosts)
	mounts := map[string]string{"/etc/hosts": filepath.Join(dir, "hosts")}
	maps.Copy(mounts, p.Files)
	var script strings.Builder
	for _, at := range slices.Sorted(maps.Keys(mounts)) {
		if _, err := os.Stat(at); os.IsNotExist(err) {
			if err := os.Mkdir(at, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Remove(at) })
		}
		script.WriteString("mount --bind '" + mounts[at] + "' '" + at + "' && ")
	}
	script.WriteString(`exec "$@"`)
	process := stack.NewProcess(t, name, filepath.Join(dir, "out"), func() *exec.Cmd {
		cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-c", script.String(), "sh", program}, p.Args...)...)
		cmd.Env = append(append(os.Environ(), "HOME="+dir), p.Env...)
		cmd.Dir = dir
		return cmd
	})
	process.Start()
	return process
}
