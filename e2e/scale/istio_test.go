//go:build scale

package scale_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"

	"tollgate/e2e/kube"
	"tollgate/e2e/stack"
)

// istioBootstrap is what Istio's agent would give the Envoy of a gateway: who it is, and
// where istiod and its own certificates are.
const istioBootstrap = `node:
  id: router~10.9.9.7~gateway-1.tollgate~tollgate.svc.cluster.local
  cluster: tollgate-gateway.tollgate
  metadata: {NAMESPACE: tollgate, CLUSTER_ID: Kubernetes, ISTIO_VERSION: 1.31.0, LABELS: {istio: tollgate-gateway}, NAME: gateway-1, INSTANCE_IPS: 10.9.9.7, PROXY_CONFIG: {}}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 19000}}}
dynamic_resources:
  ads_config: {api_type: GRPC, transport_api_version: V3, set_node_on_first_message_only: true, grpc_services: [{envoy_grpc: {cluster_name: istiod}}]}
  cds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
  lds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
static_resources:
  clusters:
  - name: istiod
    connect_timeout: 1s
    typed_extension_protocol_options: &h2
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: istiod, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 15010}}}}]}]}
  - name: sds-grpc
    connect_timeout: 1s
    typed_extension_protocol_options: *h2
    load_assignment: {cluster_name: sds-grpc, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: SOCKET}}}}]}]}
`

// serveFiles does the part of Istio's agent that gives Envoy the certificates which a
// DestinationRule names by their files.
func serveFiles(t *testing.T, certs certificates, socket string) {
	t.Helper()
	file := func(name string) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: certs.path(name)}}
	}
	const dir = "/etc/tollgate-client/"
	pair := &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: file("client.crt"), PrivateKey: file("client.key")}}
	authority := &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: file("ca.crt")}}
	all := map[string]types.Resource{
		"file-cert:" + dir + "tls.crt~" + dir + "tls.key": &tlsv3.Secret{Type: pair},
		"file-root:" + dir + "ca.crt":                     &tlsv3.Secret{Type: authority},
		// Of the mesh itself. Nothing here is called with them.
		"default": &tlsv3.Secret{Type: pair},
		"ROOTCA":  &tlsv3.Secret{Type: authority},
	}
	for name, s := range all {
		s.(*tlsv3.Secret).Name = name
	}
	lis, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	secrets := cache.NewLinearCache(resource.SecretType, cache.WithInitialResources(all))
	ctx, cancel := context.WithCancel(context.Background())
	g := grpc.NewServer()
	secretv3.RegisterSecretDiscoveryServiceServer(g, server.NewServer(ctx, secrets, nil))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(lis)
	}()
	t.Cleanup(func() { cancel(); g.Stop(); <-done })
}

// toPort is a patch that moves tollgate to another port, because there is one network here.
const toPort = `- target: {kind: ServiceEntry, name: tollgate}
  patch: '[{"op": "add", "path": "/spec/ports/0/targetPort", "value": 9943}, {"op": "add", "path": "/spec/ports/1/targetPort", "value": 9943}]'
`

// A gateway of Istio: deploy/istio, tollgate over mutual TLS. A plain Envoy takes the place
// of Istio's own build of it.
func TestIstio(t *testing.T) {
	alone(t)
	c := kube.Start(t)
	c.Define("istio")
	namespaces(c, "tollgate", "istio-system")
	e := startTollgate(t, "Istio")
	istiod := e.behindIstio(c, "istio")
	e.chain("envoy.filters.http.ext_authz", "tollgate.headers", "tollgate.ext_proc", "tollgate.buffer", "envoy.filters.http.router")
	e.everything()
	e.alive(1100)
	istiod.Kill()
	e.want("without istiod", e.chat(true, 5, ""), 200, "[DONE]")
	e.agree()
	e.Tollgate.Kill()
	e.want("without tollgate", e.chat(true, 5, ""), 503, "")
}

// behindIstio applies a folder of deploy/, starts what it needs besides, istiod and the
// Envoy of the gateway.
func (e *edge) behindIstio(c *kube.Cluster, folder string, also ...func()) (istiod *stack.Process) {
	e.t.Helper()
	e.URL = gatewayURL
	manifests := kustomize(e.t, folder, toPort)
	c.Apply(manifests)
	e.typos(c, manifests)
	for _, start := range also {
		start()
	}
	istiod = startIstiod(e.t, c)
	dir, err := os.MkdirTemp("", "i")
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "sds.sock")
	serveFiles(e.t, e.certs, socket)
	write(e.t, filepath.Join(dir, "bootstrap.yaml"), strings.Replace(istioBootstrap, "SOCKET", socket, 1))
	pod{Hosts: e.hosts, Args: []string{"-c", filepath.Join(dir, "bootstrap.yaml"), "--concurrency", "2"}}.start(e.t, "envoy", stack.EnvoyBinary(e.t))
	e.waitFor(30 * time.Second)
	return istiod
}

// startIstiod runs istiod against the API server, with deploy/istio/mesh.yaml.
func startIstiod(t *testing.T, c *kube.Cluster) *stack.Process {
	t.Helper()
	program, dir := kube.Tool(t, "pilot-discovery"), t.TempDir()
	mesh := filepath.Join(stack.ModuleRoot(t), "deploy/istio/mesh.yaml")
	p := stack.NewProcess(t, "istiod", filepath.Join(dir, "out"), func() *exec.Cmd {
		cmd := exec.Command(program, "discovery", "--kubeconfig", c.Kubeconfig, "--meshConfig", mesh,
			"--grpcAddr", "127.0.0.1:15010", "--httpAddr", "127.0.0.1:8081", "--httpsAddr", "", "--secureGRPCAddr", "", "--monitoringAddr", "127.0.0.1:15014")
		cmd.Env = append(os.Environ(), "POD_NAMESPACE=istio-system", "POD_NAME=istiod-1", "HOME="+dir,
			// What only Istio's own build of Envoy has.
			"PILOT_ENABLE_METADATA_EXCHANGE=false", "PILOT_ENABLE_ALPN_FILTER=false")
		cmd.Dir = dir
		return cmd
	})
	p.Start()
	return p
}
