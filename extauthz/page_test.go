package extauthz_test

import (
	"net/http"
	"slices"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"

	"tollgate/extauthz"
	"tollgate/internal/route"
)

// A page hears whether its client is on this machine, and gets its credentials. What a
// client says of itself is overwritten or removed.
func TestAPageHearsWhoAsks(t *testing.T) {
	for _, path := range []string{"/health", "/v1/models", "/v1/key", "/admin/keys"} {
		for host, want := range map[string]string{"localhost:8080": "yes", "gate.example": "no"} {
			in := local()
			in.method, in.path, in.host = http.MethodGet, path, host
			for _, h := range route.Said() {
				in.headers = append(in.headers, h, "yes")
			}
			out, err := ask(t, &gate{}, 0, in)
			if err != nil || codes.Code(out.GetStatus().GetCode()) != codes.OK {
				t.Fatalf("got %v, %v", out, err)
			}
			set, removed := out.GetOkResponse().GetHeaders(), out.GetOkResponse().GetHeadersToRemove()
			if set[0].GetHeader().GetKey() != route.LocalHeader || set[0].GetHeader().GetValue() != want ||
				set[0].GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
				t.Errorf("%s of %s: set %v", path, host, set)
			}
			if len(set)+len(removed) != len(route.Said()) || slices.Contains(removed, "authorization") || slices.Contains(removed, "x-api-key") {
				t.Errorf("%s of %s: set %v, removed %v", path, host, set, removed)
			}
		}
	}
}

// A client that is on the machine of an Envoy on another host is not on this one.
func TestNobodyIsLocalBehindARemoteEnvoy(t *testing.T) {
	for remote, want := range map[bool]bool{false: true, true: false} {
		g := &gate{}
		if _, err := askWith(t, g, extauthz.Options{Remote: remote}, local()); err != nil {
			t.Fatal(err)
		}
		if g.asked.Local != want {
			t.Errorf("remote %v: local %v, want %v", remote, g.asked.Local, want)
		}
	}
}
