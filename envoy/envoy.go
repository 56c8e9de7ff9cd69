// Package envoy is the Envoy side of Tollgate as data: the bootstrap, what fills
// it in, and where the binary is.
//
// envoy.yaml is a template; [Render] fills it in from [Params]. All values that
// come from the configuration are quoted there, so that none of them can become
// structure. Envoy runs with state_dir as its working directory, because the
// names of the sockets are relative.
package envoy

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/renameio/v2"

	"tollgate/internal/config"
	"tollgate/internal/unixsock"
)

// Params is everything the bootstrap depends on.
type Params struct {
	ListenAddress  string // an IP address
	ListenPort     int
	AdminAddress   string // of admin_listen; empty: the edge has its paths
	AdminPort      int
	TLSCertFile    string // absolute; empty serves plain HTTP
	TLSKeyFile     string // absolute
	AllowOrigins   []string
	TrustedProxies int // hops whose x-forwarded-for is believed
	MaxBodyBytes   int64
	MaxConnections int64 // of clients, at once
	MaxHeapBytes   int64 // of Envoy; above it the largest streams are reset
	BodyTimeout    time.Duration
	IdleTimeout    time.Duration
	Upstreams      []Endpoint // written into the bootstrap, balanced by Envoy; none: tollgate tells them, and chooses
	APIKeyFile     string     // absolute; empty injects nothing
	GRPCSocket     string     // relative to state_dir
	HTTPSocket     string
	AdminSocket    string
	SecretsFile    string
	Meter          *Meter  // nil: tollgate meters by ext_proc
	Remote         *Remote // nil: tollgate is the one with its sockets in state_dir
}

//go:embed envoy.yaml
var source string

var bootstrap = parse()

func parse() *template.Template {
	t := template.New("envoy.yaml")
	return template.Must(t.Funcs(template.FuncMap{
		"q":                  quote,
		"serviceCertificate": func() string { return config.ServiceCertificateFile },
		"serviceAuthority":   func() string { return config.ServiceAuthorityFile },
		"dur":                duration,
		"retries":            func() int { return PlacementTries - 1 },
		"placement": func() map[string]string {
			return map[string]string{"Namespace": PlacementNamespace, "Key": PlacementKey, "Model": ModelKey}
		},
		"own":              func() string { return ownReply },
		"replies":          func() []reply { return localReplies },
		"requestHeaders":   func() []string { return requestHeaders },
		"requestFamilies":  func() []string { return requestFamilies },
		"responseHeaders":  func() []string { return responseHeaders },
		"responseFamilies": func() []string { return responseFamilies },
		"args":             func(p Params, v any) map[string]any { return map[string]any{"Params": p, "Value": v} },
		// A filter's text is the template of its name.
		"filter": func(name string, p Params) (string, error) {
			var out strings.Builder
			err := t.ExecuteTemplate(&out, "filter "+name, p)
			return out.String(), err
		},
	}).Parse(source))
}

// Render fills the bootstrap in. Values that Envoy could not take literally
// (control characters, invalid UTF-8, socket paths over 107 bytes) are errors.
func Render(p Params) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("render envoy config: %w", err)
	}
	var out bytes.Buffer
	if err := bootstrap.Execute(&out, p); err != nil {
		return nil, fmt.Errorf("render envoy config: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// Write leaves the bootstrap, and the files of [Secrets], under stateDir/run, each in
// one step, and returns the bootstrap's path relative to
// stateDir: what [Args] takes when stateDir is Envoy's working directory.
func Write(stateDir string, p Params) (string, error) {
	doc, err := Render(p)
	if err != nil {
		return "", err
	}
	secrets, err := Secrets(p)
	if err != nil {
		return "", err
	}
	if err := unixsock.Folder(filepath.Join(stateDir, "run")); err != nil {
		return "", fmt.Errorf("use state_dir: %w", err)
	}
	for _, f := range secrets {
		if err := renameio.WriteFile(filepath.Join(stateDir, f.Path), f.Text, 0o600); err != nil {
			return "", fmt.Errorf("write envoy secrets: %w", err)
		}
	}
	if err := renameio.WriteFile(filepath.Join(stateDir, config.BootstrapFile), doc, 0o600); err != nil {
		return "", fmt.Errorf("write envoy config: %w", err)
	}
	return config.BootstrapFile, nil
}

// Args is Envoy's command line without the program's name. Concurrency 0 leaves
// the number of workers to Envoy: all cores.
func Args(bootstrapPath string, cfg *config.Config) []string {
	drain := max(1, int((cfg.DrainTimeout+time.Second-1)/time.Second))
	args := []string{
		"-c", bootstrapPath,
		"--disable-hot-restart", // no shared memory: one Envoy per state_dir, and none is left behind
		"--drain-time-s", strconv.Itoa(drain),
		"--drain-strategy", "immediate", // every answer says "connection: close" from the first second of a drain
		"--log-level", logLevel(cfg.Log.Level),
		// http says "error" for every body that is too large, a client's mistake; config warns several times a second while tollgate is down.
		"--component-log-level", "http:critical,config:error",
		"--log-format", `{"time":"%Y-%m-%dT%H:%M:%S.%f%z","level":"%l","logger":"%n","message":"%j"}`,
	}
	if cfg.Envoy.Concurrency > 0 {
		args = append(args, "--concurrency", strconv.Itoa(cfg.Envoy.Concurrency))
	}
	return args
}

// logLevel is never finer than info: from debug on Envoy logs request headers,
// and with them every key.
func logLevel(level string) string {
	switch level {
	case "warn":
		return "warning"
	case "error":
		return "error"
	default:
		return "info"
	}
}

// AnyOrigin reports whether every web page may call.
func (p Params) AnyOrigin() bool { return slices.Contains(p.AllowOrigins, "*") }

// BufferBytes is what Envoy may hold of one body: the largest one allowed, and
// room for the read that goes over it, so that no allowed body ever fills it.
func (p Params) BufferBytes() int64 { return p.MaxBodyBytes + 1<<20 }

// OriginRegex matches the allowed origins and nothing else.
func (p Params) OriginRegex() string {
	if p.AnyOrigin() {
		return ".+"
	}
	origins := make([]string, len(p.AllowOrigins))
	for i, o := range p.AllowOrigins {
		origins[i] = regexp.QuoteMeta(o)
	}
	return strings.Join(origins, "|")
}

// UpstreamDNS reports whether an engine is given by name.
func (p Params) UpstreamDNS() bool {
	return slices.ContainsFunc(p.Upstreams, func(e Endpoint) bool {
		_, err := netip.ParseAddr(e.Host)
		return err != nil
	})
}

// check reports everything that would make a document Envoy misreads or refuses.
func (p Params) check() error {
	errs, texts, sockets := p.checkParts()
	texts = append(texts, p.ListenAddress, p.AdminAddress, p.TLSCertFile, p.TLSKeyFile, p.APIKeyFile, p.SecretsFile)
	texts = append(texts, p.AllowOrigins...)
	texts = append(texts, sockets...)
	for _, e := range p.Upstreams {
		texts = append(texts, e.Host)
	}
	for _, s := range texts {
		if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
			errs = append(errs, fmt.Errorf("%q: control characters and invalid UTF-8 are not allowed", s))
		}
	}
	for _, s := range sockets {
		if s == "" || len(s) > 107 {
			errs = append(errs, fmt.Errorf("socket path %q: must have 1 to 107 bytes", s))
		}
	}
	if (p.TLSCertFile == "") != (p.TLSKeyFile == "") {
		errs = append(errs, errors.New("tls: cert_file and key_file must be set both or not at all"))
	}
	return errors.Join(errs...)
}

// checkParts checks the meter and a tollgate on another host, and returns the texts and
// the sockets of all parts.
func (p Params) checkParts() (errs []error, texts, sockets []string) {
	sockets = []string{p.GRPCSocket, p.HTTPSocket, p.AdminSocket}
	if p.Meter != nil {
		sockets = append(sockets, p.Meter.Socket)
		texts = append(texts, p.Meter.Library, p.Meter.Sync)
		if strings.Contains(p.Meter.Socket, " ") {
			errs = append(errs, fmt.Errorf("socket path %q: the meter takes none with a space", p.Meter.Socket))
		}
	}
	if r := p.Remote; r != nil {
		errs = append(errs, r.check())
		if r.TLS() && p.Meter != nil {
			errs = append(errs, errors.New("meter: it needs tollgate on its own host"))
		}
		texts = append(append(append(texts, r.CertFile, r.KeyFile, r.CAFile), r.Addresses...), r.Names...)
		for _, at := range append(r.places(p.GRPCSocket), r.places(p.HTTPSocket)...) {
			if at.Socket != "" {
				sockets = append(sockets, at.Socket)
			}
		}
	}
	return errs, texts, sockets
}

// quote writes s as a double-quoted YAML scalar in ASCII. Go's escapes are a
// subset of YAML's.
func quote(s string) string { return strconv.QuoteToASCII(s) }

// duration writes d as protobuf's JSON does.
func duration(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
}
