package config_test

import (
	"testing"

	"tollgate/internal/config"
)

func TestTheCollectorsAddress(t *testing.T) {
	for _, c := range []struct{ endpoint, protocol, want string }{
		{"127.0.0.1:4317", "grpc", "http://127.0.0.1:4317"},
		{"grpc://otel:4317", "grpc", "http://otel:4317"},
		{"https://otel.example.org", "grpc", "https://otel.example.org:4317"},
		{"https://otel.example.org/", "http", "https://otel.example.org/v1/traces"},
		{"http://otel:4318/other/path", "http", "http://otel:4318/other/path"},
		{"[::1]:4318", "http", "http://[::1]:4318/v1/traces"},
	} {
		o := config.OTel{Endpoint: c.endpoint, Protocol: c.protocol}
		if u, err := o.Target(); err != nil || u.String() != c.want {
			t.Errorf("%s over %s: got %v, %v; want %s", c.endpoint, c.protocol, u, err, c.want)
		}
	}
	for _, bad := range []string{"otel", "ftp://otel:1", "http://user:secret@otel:1", "http://otel:1/?key=secret", "http://", "otel:4317/v1/traces", "http://o tel:1"} {
		o := config.OTel{Endpoint: bad, Protocol: config.OTLPOverGRPC}
		if u, err := o.Target(); err == nil {
			t.Errorf("%s: taken as %v", bad, u)
		}
	}
}
