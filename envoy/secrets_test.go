package envoy_test

import (
	"encoding/json"
	"testing"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/goccy/go-yaml"
	"google.golang.org/protobuf/encoding/protojson"

	"tollgate/envoy"
)

func TestSecretsFileNamesTheCertificate(t *testing.T) {
	p, err := envoy.ParamsFor(everything())
	if err != nil {
		t.Fatal(err)
	}
	files, err := envoy.Secrets(p)
	if err != nil || len(files) != 1 || files[0].Path != p.SecretsFile {
		t.Fatal(files, err)
	}
	doc := files[0].Text
	var file struct {
		Resources []map[string]any `yaml:"resources"`
	}
	if err := yaml.Unmarshal(doc, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Resources) != 1 {
		t.Fatalf("resources: got %d, want 1", len(file.Resources))
	}
	delete(file.Resources[0], "@type")
	j, err := json.Marshal(file.Resources[0])
	if err != nil {
		t.Fatal(err)
	}
	secret := &tlsv3.Secret{}
	if err := protojson.Unmarshal(j, secret); err != nil {
		t.Fatal(err)
	}
	if got, want := secret.GetTlsCertificate().GetPrivateKey().GetFilename(), "/etc/tollgate/tls.key"; got != want {
		t.Errorf("private key: got %q, want %q", got, want)
	}
	p.TLSCertFile, p.TLSKeyFile = "", ""
	if files, err := envoy.Secrets(p); err != nil || files != nil {
		t.Errorf("without TLS: got %v, %v, want nothing", files, err)
	}
}
