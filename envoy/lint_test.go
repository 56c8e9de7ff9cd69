package envoy_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	alsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/internal/config"
)

// The rules below are the ones whose violation would let a request through
// unauthorized or unmetered, or give a slot back too early.

func unpack[M proto.Message](t *testing.T, packed *anypb.Any, m M) M {
	t.Helper()
	if err := packed.UnmarshalTo(m); err != nil {
		t.Fatal(err)
	}
	return m
}

func hcmOf(t *testing.T, b *bootstrapv3.Bootstrap) *hcmv3.HttpConnectionManager {
	t.Helper()
	filter := b.GetStaticResources().GetListeners()[0].GetFilterChains()[0].GetFilters()[0]
	return unpack(t, filter.GetTypedConfig(), &hcmv3.HttpConnectionManager{})
}

func corsOf(t *testing.T, b *bootstrapv3.Bootstrap) *corsv3.CorsPolicy {
	t.Helper()
	return unpack(t, hcmOf(t, b).GetRouteConfig().GetVirtualHosts()[0].GetTypedPerFilterConfig()["envoy.filters.http.cors"], &corsv3.CorsPolicy{})
}

func filterOf[M proto.Message](t *testing.T, hcm *hcmv3.HttpConnectionManager, name string, m M) M {
	t.Helper()
	for _, f := range hcm.GetHttpFilters() {
		if f.GetName() == name {
			return unpack(t, f.GetTypedConfig(), m)
		}
	}
	t.Fatalf("no filter %s", name)
	return m
}

// disables reports whether the route switches the filter off.
func disables(t *testing.T, r *routev3.Route, filter string) bool {
	t.Helper()
	packed, ok := r.GetTypedPerFilterConfig()[filter]
	if !ok {
		return false
	}
	if filter == "envoy.filters.http.ext_authz" {
		return unpack(t, packed, &authzv3.ExtAuthzPerRoute{}).GetDisabled()
	}
	if filter == "envoy.filters.http.buffer" {
		return unpack(t, packed, &bufferv3.BufferPerRoute{}).GetDisabled()
	}
	return unpack(t, packed, &extprocv3.ExtProcPerRoute{}).GetDisabled()
}

func TestNothingFailsOpen(t *testing.T) {
	walk(t, bootstrapOf(t, everything()).ProtoReflect(), func(m protoreflect.Message) {
		for _, name := range []protoreflect.Name{
			"failure_mode_allow", "shadow_mode", "observability_mode", "allow_content_length_header", "clear_route_cache",
			"clear_route_cache_headers", "disable_clear_route_cache", "filter_enabled", "filter_enabled_metadata", "disable_immediate_response",
		} {
			if fd := m.Descriptor().Fields().ByName(name); fd != nil && m.Has(fd) {
				t.Errorf("%s sets %s", m.Descriptor().FullName(), name)
			}
		}
	})
}

func TestAuthorizationComesBeforeMetering(t *testing.T) {
	var got []string
	for _, f := range hcmOf(t, bootstrapOf(t, everything())).GetHttpFilters() {
		if f.GetDisabled() || f.GetIsOptional() {
			t.Errorf("%s is disabled or optional", f.GetName())
		}
		got = append(got, strings.TrimPrefix(f.GetName(), "envoy.filters.http."))
	}
	if diff := cmp.Diff([]string{"cors", "ext_authz", "body_size_limit", "ext_proc", "buffer", "router"}, got); diff != "" {
		t.Errorf("filters (-want +got):\n%s", diff)
	}
}

func TestProcessingModeKeepsTheStreamOpenAndDenialsOutOfIt(t *testing.T) {
	ep := filterOf(t, hcmOf(t, bootstrapOf(t, everything())), "envoy.filters.http.ext_proc", &extprocv3.ExternalProcessor{})
	want := &extprocv3.ProcessingMode{
		RequestHeaderMode:   extprocv3.ProcessingMode_SEND,
		ResponseHeaderMode:  extprocv3.ProcessingMode_SKIP,
		RequestTrailerMode:  extprocv3.ProcessingMode_SEND,
		ResponseTrailerMode: extprocv3.ProcessingMode_SEND,
	}
	if diff := cmp.Diff(want, ep.GetProcessingMode(), protocmp.Transform()); diff != "" {
		t.Errorf("processing mode (-want +got):\n%s", diff)
	}
	if !ep.GetAllowModeOverride() {
		t.Error("bodies cannot be switched on")
	}
	if ep.GetRouteCacheAction() != extprocv3.ExternalProcessor_RETAIN {
		t.Error("a rewritten request could change its route")
	}
	if got := ep.GetMessageTimeout().AsDuration(); got != 5*time.Second {
		t.Errorf("message_timeout: got %s, want 5s", got)
	}
	if got := ep.GetStatusOnError().GetCode(); got != 503 {
		t.Errorf("status_on_error: got %v, want 503", got)
	}
	if diff := cmp.Diff([]string{"envoy.filters.http.ext_authz"}, ep.GetMetadataOptions().GetForwardingNamespaces().GetUntyped()); diff != "" {
		t.Errorf("the ticket does not reach ext_proc (-want +got):\n%s", diff)
	}
	if !slices.Contains(ep.GetResponseAttributes(), "response.code_details") {
		t.Error("ext_proc cannot tell vLLM's answers from Envoy's")
	}
	// Exactly what extproc reads: one that is missing here is never seen.
	read := []string{":method", ":path", "x-request-id", "content-length", ":status", "content-type", "content-encoding", "retry-after", "metadata"}
	if diff := cmp.Diff(read, exact(ep.GetForwardRules().GetAllowedHeaders())); diff != "" {
		t.Errorf("headers that ext_proc receives (-want +got):\n%s", diff)
	}
}

// exact are the names that a list of headers matches.
func exact(l *matcherv3.ListStringMatcher) []string {
	var names []string
	for _, p := range l.GetPatterns() {
		if p.GetPrefix() != "" {
			names = append(names, p.GetPrefix()+"*")
			continue
		}
		names = append(names, p.GetExact())
	}
	return names
}

func TestNothingPassesWithoutAuthorization(t *testing.T) {
	routes := hcmOf(t, bootstrapOf(t, everything())).GetRouteConfig().GetVirtualHosts()[0].GetRoutes()
	metered := 0
	for _, r := range routes {
		toEngine := r.GetRoute().GetCluster() == "vllm"
		if disables(t, r, "envoy.filters.http.ext_authz") {
			t.Errorf("route %s: ext_authz is off", r.GetName())
		}
		if disables(t, r, "envoy.filters.http.ext_proc") == toEngine || disables(t, r, "envoy.filters.http.buffer") == toEngine {
			t.Errorf("route %s: a body must be read, and the request held back for it, exactly where vLLM answers", r.GetName())
		}
		if !toEngine {
			continue
		}
		metered++
		if r.GetMatch().GetPath() == "" || r.GetMatch().GetHeaders()[0].GetStringMatch().GetExact() != "POST" {
			t.Errorf("route %s: not one exact path and POST", r.GetName())
		}
		// Bodies are counted by tollgate, and Envoy must hold little of them.
		if r.GetRequestBodyBufferLimit() != nil {
			t.Errorf("route %s: a body limit of its own", r.GetName())
		}
		checkStripped(t, r)
	}
	if metered != 18 {
		t.Errorf("routes to vLLM: got %d, want 18", metered)
	}
	if last := routes[len(routes)-1]; last.GetMatch().GetPrefix() != "/" || last.GetRoute().GetCluster() != "tollgate_http" {
		t.Errorf("the last route is %s, want one that the check refuses, for everything", last.GetName())
	}
}

// TestNoOfferOfAnotherProtocolReachesAnEngine: upgrades are let in so that the check
// can refuse them; the route for them comes before those to vLLM, in case it does not.
func TestNoOfferOfAnotherProtocolReachesAnEngine(t *testing.T) {
	hcm := hcmOf(t, bootstrapOf(t, everything()))
	for _, u := range hcm.GetUpgradeConfigs() {
		if u.GetUpgradeType() != "websocket" || len(u.GetFilters()) > 0 {
			t.Errorf("upgrade %s has filters of its own, or is none of ours", u.GetUpgradeType())
		}
	}
	for _, r := range hcm.GetRouteConfig().GetVirtualHosts()[0].GetRoutes() {
		if r.GetRoute().GetCluster() == "vllm" {
			t.Fatal("a route to vLLM comes before the one for upgrades")
		}
		if h := r.GetMatch().GetHeaders(); r.GetMatch().GetPrefix() == "/" && len(h) == 1 && h[0].GetName() == "upgrade" && h[0].GetPresentMatch() {
			return
		}
	}
	t.Error("no route for upgrades")
}

// checkStripped: what a client says of itself ends at the edge, what belongs to the
// request goes on.
func checkStripped(t *testing.T, r *routev3.Route) {
	t.Helper()
	for _, h := range []string{"authorization", "x-api-key", "cookie", "accept-encoding", "x-data-parallel-rank", "x-session-id", "endpoint-load-metrics-format", "via", "x-http-method-override"} {
		if !slices.Contains(r.GetRequestHeadersToRemove(), h) {
			t.Errorf("route %s: %s reaches vLLM", r.GetName(), h)
		}
	}
	for _, h := range []string{"x-request-id", "traceparent"} {
		if slices.Contains(r.GetRequestHeadersToRemove(), h) {
			t.Errorf("route %s: vLLM does not get %s", r.GetName(), h)
		}
	}
	if !r.GetRoute().GetAutoHostRewrite().GetValue() {
		t.Errorf("route %s: vLLM gets the host that the client chose", r.GetName())
	}
}

func TestAuthorizationErrorsAre503(t *testing.T) {
	ea := filterOf(t, hcmOf(t, bootstrapOf(t, everything())), "envoy.filters.http.ext_authz", &authzv3.ExtAuthz{})
	if got := ea.GetStatusOnError().GetCode(); got != 503 {
		t.Errorf("status_on_error: got %v, want 503", got)
	}
	if ea.GetGrpcService().GetTimeout().AsDuration() <= 0 {
		t.Error("a hung tollgate would hold requests")
	}
	if !ea.GetEncodeRawHeaders() {
		t.Error("invalid bytes in a key would be replaced before tollgate sees them")
	}
	if ea.GetWithRequestBody() != nil {
		t.Error("Check must get no body")
	}
	// Exactly what extauthz reads.
	read := []string{
		"authorization", "x-api-key", "x-request-id", "x-envoy-external-address", "origin", "sec-fetch-site",
		"forwarded", "via", "x-real-ip", "cf-connecting-ip", "true-client-ip",
		"content-type", "content-length", "upgrade", "anthropic-version", "access-control-request-method", "traceparent", "x-openwebui-user-*", "x-forwarded-*", "x-tollgate-said-*",
	}
	if diff := cmp.Diff(read, exact(ea.GetAllowedHeaders())); diff != "" {
		t.Errorf("headers that Check receives (-want +got):\n%s", diff)
	}
}

func TestEdgeTrustsNobody(t *testing.T) {
	c := everything()
	hcm := hcmOf(t, bootstrapOf(t, c))
	if !hcm.GetUseRemoteAddress().GetValue() || !hcm.GetSkipXffAppend() || int(hcm.GetXffNumTrustedHops()) != c.TrustedProxies {
		t.Error("client addresses could be chosen by clients")
	}
	if hcm.GetPreserveExternalRequestId() || !hcm.GetAlwaysSetRequestIdInResponse() {
		t.Error("request ids must be Envoy's own, and returned")
	}
	if !hcm.GetNormalizePath().GetValue() || !hcm.GetMergeSlashes() ||
		hcm.GetPathWithEscapedSlashesAction() != hcmv3.HttpConnectionManager_KEEP_UNCHANGED {
		t.Error("a path has more than one spelling")
	}
	if hcm.GetRequestTimeout().AsDuration() != c.Request.BodyTimeout || hcm.GetStreamIdleTimeout().AsDuration() != c.Request.IdleTimeout {
		t.Errorf("timeouts: got %s and %s", hcm.GetRequestTimeout().AsDuration(), hcm.GetStreamIdleTimeout().AsDuration())
	}
}

func TestAccessLogIsImmediateAndOnlyAtTheEnd(t *testing.T) {
	hcm := hcmOf(t, bootstrapOf(t, everything()))
	if hcm.GetAccessLogOptions() != nil || len(hcm.GetAccessLog()) != 1 {
		t.Fatal("want one access log without periodic entries")
	}
	als := unpack(t, hcm.GetAccessLog()[0].GetTypedConfig(), &alsv3.HttpGrpcAccessLogConfig{}).GetCommonConfig()
	if als.GetBufferSizeBytes() == nil || als.GetBufferSizeBytes().GetValue() != 0 {
		t.Error("entries are held back")
	}
}

func TestAdminIsAPrivateSocket(t *testing.T) {
	b := bootstrapOf(t, everything())
	pipe := b.GetAdmin().GetAddress().GetPipe()
	if pipe.GetPath() != "run/envoy-admin.sock" || pipe.GetMode() != 0o600 {
		t.Errorf("admin: got %v", b.GetAdmin().GetAddress())
	}
	if got := len(b.GetStaticResources().GetListeners()); got != 1 {
		t.Errorf("listeners: got %d, want 1", got)
	}
}

func TestNoClusterRefusesTheThousandthStream(t *testing.T) {
	for _, c := range bootstrapOf(t, everything()).GetStaticResources().GetClusters() {
		th := c.GetCircuitBreakers().GetThresholds()
		if len(th) != 1 || th[0].GetMaxRequests().GetValue() < 10000 || th[0].GetMaxConnections().GetValue() < 10000 || th[0].GetMaxPendingRequests().GetValue() < 10000 {
			t.Errorf("cluster %s: %v", c.GetName(), th)
		}
	}
}

func TestTollgatesOwnRepliesComeFirst(t *testing.T) {
	lr := hcmOf(t, bootstrapOf(t, everything())).GetLocalReplyConfig()
	if lr.GetBodyFormat() != nil {
		t.Error("a global body format rewrites everything, denials included")
	}
	for i, m := range lr.GetMappers() {
		if hasFormat := m.GetBodyFormatOverride() != nil; hasFormat != (i > 0) {
			t.Errorf("mapper %d: body format %v", i, hasFormat)
		}
		if i == 0 && (m.GetStatusCode() != nil || m.GetBody() != nil || len(m.GetHeadersToAdd()) > 0) {
			t.Error("the first mapper changes denials")
		}
	}
}

func TestSilentConnectionsEndSoonAndAreBounded(t *testing.T) {
	for name, c := range map[string]*config.Config{"plain": defaults(), "TLS": everything()} {
		b := bootstrapOf(t, c)
		l := b.GetStaticResources().GetListeners()[0]
		if got := l.GetListenerFiltersTimeout().AsDuration(); got != 30*time.Second || l.GetContinueOnListenerFiltersTimeout() {
			t.Errorf("%s: the first byte may take %s, then: continue %v", name, got, l.GetContinueOnListenerFiltersTimeout())
		}
		if waits := len(l.GetListenerFilters()) == 1; waits != (name == "plain") {
			t.Errorf("%s: waits for a first byte: %v", name, waits)
		}
		if got := l.GetFilterChains()[0].GetTransportSocketConnectTimeout().AsDuration(); got != 30*time.Second {
			t.Errorf("%s: the handshake may take %s", name, got)
		}
		if !b.GetAdmin().GetIgnoreGlobalConnLimit() {
			t.Errorf("%s: a flood of clients closes the admin page", name)
		}
	}
}

func TestMemoryIsTakenFromTheLargestStreams(t *testing.T) {
	for name, c := range map[string]*config.Config{"plain": defaults(), "TLS": everything()} {
		actions := map[string]bool{}
		for _, a := range bootstrapOf(t, c).GetOverloadManager().GetActions() {
			actions[a.GetName()] = true
		}
		for _, want := range []string{"shrink_heap", "disable_http_keepalive", "reset_high_memory_stream"} {
			if !actions["envoy.overload_actions."+want] {
				t.Errorf("%s: nothing does %s", name, want)
			}
		}
		if actions["envoy.overload_actions.stop_accepting_requests"] {
			t.Errorf("%s: one client's memory refuses everybody", name)
		}
	}
}

func TestBuffersThatNobodyCountsAreSmall(t *testing.T) {
	for name, c := range map[string]*config.Config{"plain": defaults(), "TLS": everything()} {
		b := bootstrapOf(t, c)
		l := b.GetStaticResources().GetListeners()[0]
		if got := l.GetPerConnectionBufferLimitBytes().GetValue(); got > 128<<10 {
			t.Errorf("%s: %d bytes of a body are read before anybody counts them", name, got)
		}
		for _, cluster := range b.GetStaticResources().GetClusters() {
			got := cluster.GetPerConnectionBufferLimitBytes()
			if held := cluster.GetName() == "vllm" || cluster.GetName() == "tollgate_proc"; held && (got == nil || got.GetValue() > 256<<10) {
				t.Errorf("%s: cluster %s holds %v bytes a connection", name, cluster.GetName(), got)
			}
			if cluster.GetName() == "tollgate_als" && got != nil {
				t.Errorf("%s: entries of the access log are thrown away above %v bytes", name, got)
			}
		}
	}
}
