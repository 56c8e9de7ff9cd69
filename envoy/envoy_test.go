package envoy_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	// The types of every typed_config, so that a misspelt field inside one is seen.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/body_size_limit/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/credential_injector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/injected_credentials/generic/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/override_host/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/subset/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/goccy/go-yaml"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/envoy"
	"tollgate/internal/config"
)

// defaults is what an empty config file amounts to, as far as Envoy is concerned.
func defaults() *config.Config {
	return &config.Config{
		Listen: "127.0.0.1:8080",
		CORS:   config.CORS{AllowOrigins: []string{"*"}},
		Log:    config.Log{Level: "info"},
		Request: config.Request{
			MaxBodyMB:   32,
			BodyTimeout: time.Minute,
			IdleTimeout: 10 * time.Minute,
		},
		DrainTimeout: time.Minute,
		VLLM:         config.VLLM{Host: "127.0.0.1", Port: 8000},
	}
}

// everything has each option away from its default.
func everything() *config.Config {
	c := defaults()
	c.Listen = "[::]:8443"
	c.TLS = config.TLS{CertFile: "/etc/tollgate/tls.crt", KeyFile: "/etc/tollgate/tls.key"}
	c.CORS.AllowOrigins = []string{"https://chat.example.com", "http://localhost:3000"}
	c.TrustedProxies = 2
	c.Request.BodyTimeout = 1500 * time.Millisecond
	c.VLLM.Endpoints = []string{"10.0.0.2:8000", "[fd00::3]:8001", "gpu-3.example.com:8000"}
	c.VLLM.APIKeyFile = "/run/secrets/vllm_key"
	return c
}

func render(t *testing.T, c *config.Config) []byte {
	t.Helper()
	doc, err := envoy.Render(params(t, c))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// params are those of a configuration on a machine of a certain size.
func params(t *testing.T, c *config.Config) envoy.Params {
	t.Helper()
	p, err := envoy.ParamsFor(c)
	if err != nil {
		t.Fatal(err)
	}
	p.MaxConnections, p.MaxHeapBytes = 50000, 1<<30 // else the machine's
	if c.Envoy.Meter == config.MeterModule {        // found by the launcher
		p.Meter = &envoy.Meter{Library: "/opt/tollgate/libtollgate_meter-9f2c41d07b3e.so", Socket: config.MeterSocket, Sync: "process"}
	}
	return p
}

// parse reads YAML strictly into m: no duplicate keys, no unknown fields, at
// any depth.
func parse(t *testing.T, doc []byte, m proto.Message) {
	t.Helper()
	var v any
	if err := yaml.UnmarshalWithOptions(doc, &v, yaml.Strict()); err != nil {
		t.Fatalf("read YAML: %v", err)
	}
	j, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(j, m); err != nil {
		t.Fatalf("read %s: %v", m.ProtoReflect().Descriptor().FullName(), err)
	}
}

// bootstrapWith has the engines written in.
func bootstrapWith(t *testing.T, c *config.Config) *bootstrapv3.Bootstrap {
	t.Helper()
	p, err := envoy.ParamsFor(c)
	if err != nil {
		t.Fatal(err)
	}
	if p.Upstreams, err = envoy.Upstreams(c); err != nil {
		t.Fatal(err)
	}
	doc, err := envoy.Render(p)
	if err != nil {
		t.Fatal(err)
	}
	b := &bootstrapv3.Bootstrap{}
	parse(t, doc, b)
	return b
}

func bootstrapOf(t *testing.T, c *config.Config) *bootstrapv3.Bootstrap {
	t.Helper()
	b := &bootstrapv3.Bootstrap{}
	parse(t, render(t, c), b)
	return b
}

// walk visits every message inside m, those packed into Any included.
func walk(t *testing.T, m protoreflect.Message, visit func(protoreflect.Message)) {
	t.Helper()
	if packed, ok := m.Interface().(*anypb.Any); ok {
		inner, err := packed.UnmarshalNew()
		if err != nil {
			t.Fatalf("unpack %s: %v", packed.GetTypeUrl(), err)
		}
		m = inner.ProtoReflect()
	}
	visit(m)
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					walk(t, v.Message(), visit)
					return true
				})
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				walk(t, v.List().Get(i).Message(), visit)
			}
		default:
			walk(t, v.Message(), visit)
		}
		return true
	})
}

func TestBootstrapHasNoUnknownFieldAndNoForbiddenValue(t *testing.T) {
	noCORS := defaults()
	noCORS.CORS.AllowOrigins = nil
	for name, c := range map[string]*config.Config{"default": defaults(), "everything": everything(), "no origin": noCORS} {
		t.Run(name, func(t *testing.T) {
			seen := 0
			walk(t, bootstrapOf(t, c).ProtoReflect(), func(m protoreflect.Message) {
				seen++
				if v, ok := m.Interface().(interface{ ValidateAll() error }); ok {
					if err := v.ValidateAll(); err != nil {
						t.Errorf("%s: %v", m.Descriptor().FullName(), err)
					}
				}
			})
			if seen < 500 {
				t.Errorf("only %d messages were visited", seen)
			}
		})
	}
}

func TestHostileValuesStayValues(t *testing.T) {
	hostile := []string{
		`"`, `\`, `'`, `: x`, ` # not a comment`, `}{`, `{{ .APIKeyFile }}`, `${HOME}`, `%REQ(authorization)%`, `*anchor`, `&anchor`, `!!tag`, `- x`, `<script>`,
		"\u2028\u2029\u0085x"[:6] + "x", "\ufeffbom", "ключ", "😀", `x", "admin": {"address": {}}, "y": "`,
	}
	for _, s := range hostile {
		t.Run(s, func(t *testing.T) {
			c := everything()
			c.CORS.AllowOrigins = []string{s}
			c.VLLM.APIKeyFile = "/keys/" + s
			c.VLLM.Endpoints = nil
			c.VLLM.Host = s
			b := bootstrapWith(t, c)
			if got, want := b.GetStaticResources().GetSecrets()[0].GetGenericSecret().GetSecret().GetFilename(), "/keys/"+s; got != want {
				t.Errorf("file: got %q, want %q", got, want)
			}
			host := b.GetStaticResources().GetClusters()[0].GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0].
				GetEndpoint().GetAddress().GetSocketAddress().GetAddress()
			if host != s {
				t.Errorf("host: got %q, want %q", host, s)
			}
			if got := corsOf(t, b).GetAllowOriginStringMatch()[0].GetExact(); got != s {
				t.Errorf("origin: got %q, want %q", got, s)
			}
		})
	}
}

func TestValuesEnvoyWouldMisreadAreRefused(t *testing.T) {
	ok, err := envoy.ParamsFor(everything())
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*envoy.Params){
		"newline in an origin":      func(p *envoy.Params) { p.AllowOrigins = []string{"https://x\nadmin: {}"} },
		"NUL in a file name":        func(p *envoy.Params) { p.APIKeyFile = "/x\x00y" },
		"invalid UTF-8 in a host":   func(p *envoy.Params) { p.Upstreams = []envoy.Endpoint{{Host: "\xff", Port: 1}} },
		"C1 control character":      func(p *envoy.Params) { p.TLSCertFile = "/x\u0085" },
		"socket path of 108 bytes":  func(p *envoy.Params) { p.GRPCSocket = strings.Repeat("x", 108) },
		"empty socket path":         func(p *envoy.Params) { p.HTTPSocket = "" },
		"certificate without a key": func(p *envoy.Params) { p.TLSKeyFile = "" },
	} {
		t.Run(name, func(t *testing.T) {
			p := ok
			spoil(&p)
			if doc, err := envoy.Render(p); err == nil {
				t.Errorf("got a document of %d bytes, want an error", len(doc))
			}
		})
	}
}

func TestAddressesOfTheConfiguration(t *testing.T) {
	for _, tt := range []struct {
		listen, address string
		port            int
	}{
		{"127.0.0.1:8080", "127.0.0.1", 8080},
		{"localhost:1", "127.0.0.1", 1},
		{":8080", "0.0.0.0", 8080},
		{"[::1]:65535", "::1", 65535},
		{"[::]:0", "::", 0},
	} {
		c := defaults()
		c.Listen = tt.listen
		p, err := envoy.ParamsFor(c)
		if err != nil {
			t.Errorf("listen %s: %v", tt.listen, err)
			continue
		}
		if p.ListenAddress != tt.address || p.ListenPort != tt.port {
			t.Errorf("listen %s: got %s port %d, want %s port %d", tt.listen, p.ListenAddress, p.ListenPort, tt.address, tt.port)
		}
	}
	for _, listen := range []string{"", "8080", "example.com:80", "127.0.0.1:65536", "127.0.0.1:http", "[::1:80", "127.0.0.1:-1"} {
		c := defaults()
		c.Listen = listen
		if p, err := envoy.ParamsFor(c); err == nil {
			t.Errorf("listen %q: got %+v, want an error", listen, p)
		}
	}
	for _, endpoint := range []string{"", "gpu", ":8000", "gpu:0", "http://gpu:8000", "gpu:8000/v1"} {
		c := defaults()
		c.VLLM.Endpoints = []string{endpoint}
		if got, err := envoy.Upstreams(c); err == nil {
			t.Errorf("endpoint %q: got %+v, want an error", endpoint, got)
		}
	}
}

func TestEnginesByNameAreResolvedAgainAndAgain(t *testing.T) {
	for _, tt := range []struct {
		endpoints []string
		want      string
	}{
		{nil, "EDS"},
		{[]string{"10.0.0.1:1", "[::1]:2"}, "STATIC"},
		{[]string{"10.0.0.1:1", "gpu:2"}, "STRICT_DNS"},
	} {
		c := defaults()
		c.VLLM.Endpoints = tt.endpoints
		b := bootstrapOf(t, c)
		if tt.endpoints != nil {
			b = bootstrapWith(t, c)
		}
		if got := b.GetStaticResources().GetClusters()[0].GetType().String(); got != tt.want {
			t.Errorf("%v: got %s, want %s", tt.endpoints, got, tt.want)
		}
	}
}

func TestFilesAreAbsoluteAndTheirContentStaysOut(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("key", []byte("sk-secret-of-the-engine"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := defaults()
	c.VLLM.APIKeyFile = "key"
	p, err := envoy.ParamsFor(c)
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(p.APIKeyFile) {
		t.Errorf("key file: got %q, want an absolute path", p.APIKeyFile)
	}
	if doc := string(render(t, c)); strings.Contains(doc, "sk-secret") {
		t.Error("the bootstrap contains the key itself")
	}
}

func TestArgsNeverLogHeaders(t *testing.T) {
	c := defaults()
	for level, want := range map[string]string{"trace": "info", "debug": "info", "info": "info", "warn": "warning", "error": "error", "": "info"} {
		c.Log.Level = level
		args := strings.Join(envoy.Args("run/envoy.yaml", c), " ")
		if !strings.Contains(args, "--log-level "+want+" ") {
			t.Errorf("level %q: got %s, want %s", level, args, want)
		}
	}
}

func TestArgsCarryDrainAndConcurrency(t *testing.T) {
	c := defaults()
	c.DrainTimeout = 1500 * time.Millisecond
	args := strings.Join(envoy.Args("run/envoy.yaml", c), " ")
	for _, want := range []string{"-c run/envoy.yaml", "--disable-hot-restart", "--drain-time-s 2 ", "--drain-strategy immediate"} {
		if !strings.Contains(args, want) {
			t.Errorf("got %s, want %s in it", args, want)
		}
	}
	if strings.Contains(args, "--concurrency") {
		t.Errorf("got %s, want Envoy's own choice of workers", args)
	}
	c.Envoy.Concurrency = 3
	if args := strings.Join(envoy.Args("x", c), " "); !strings.Contains(args, "--concurrency 3") {
		t.Errorf("got %s, want 3 workers", args)
	}
}

func TestWriteLeavesPrivateFiles(t *testing.T) {
	dir := t.TempDir()
	p, err := envoy.ParamsFor(everything())
	if err != nil {
		t.Fatal(err)
	}
	name, err := envoy.Write(dir, p)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{name, p.SecretsFile} {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("%s: mode %o, want 600", file, got)
		}
	}
}
