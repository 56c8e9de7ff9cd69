package xds_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"

	"tollgate/envoy"
	"tollgate/internal/rpc"
	"tollgate/xds"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestEnginesAreTheGoldenOnes: each list of engines of testdata/in becomes the
// assignment of the same name in testdata/out.
func TestEnginesAreTheGoldenOnes(t *testing.T) {
	files, err := filepath.Glob("testdata/in/*.json")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d lists, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			var engines []envoy.Endpoint
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, &engines); err != nil {
				t.Fatal(err)
			}
			assignment, err := xds.Assignment(engines)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := protojson.Marshal(assignment)
			if err != nil {
				t.Fatal(err)
			}
			var tree any // protojson varies its spaces on purpose
			if err := json.Unmarshal(raw, &tree); err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(tree, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata/out", filepath.Base(file))
			if *update {
				if err := os.WriteFile(golden, append(got, '\n'), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.TrimSpace(string(want)), string(got)); diff != "" {
				t.Errorf("engines differ, -update rewrites them (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatEnvoyWouldRefuseIsAnError(t *testing.T) {
	for name, e := range map[string]envoy.Endpoint{
		"a name": {Host: "gpu", Port: 8000}, "no host": {Port: 8000}, "no port": {Host: "10.0.0.2"}, "a large port": {Host: "10.0.0.2", Port: 65536},
	} {
		if _, err := xds.Assignment([]envoy.Endpoint{e}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	a, err := xds.Assignment([]envoy.Endpoint{{Host: "10.0.0.2", Port: 1, Models: make([]string, 10000)}})
	if err != nil {
		t.Fatal(err)
	}
	names := a.GetEndpoints()[0].GetLbEndpoints()[0].GetMetadata().GetFilterMetadata()["envoy.lb"].GetFields()["model"].GetListValue().GetValues()
	if len(names) != 1000 {
		t.Errorf("%d names of 10,000", len(names))
	}
}

// serve runs a server on a socket, with the codec that tollgate's has.
func serve(t *testing.T, s *xds.Server, socket string) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(rpc.ServerOptions()...)
	s.Register(g)
	go func() { _ = g.Serve(l) }()
	return g.Stop
}

// watcher is what Envoy is to the server.
type watcher struct {
	t      *testing.T
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
}

func watch(t *testing.T, socket, id string, known map[string]string) *watcher {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&discoveryv3.DeltaDiscoveryRequest{
		Node: &corev3.Node{Id: id}, TypeUrl: endpointType, ResourceNamesSubscribe: []string{envoy.Engines}, InitialResourceVersions: known,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &watcher{t: t, stream: stream}
}

const endpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"

// next is the answer that comes next, acknowledged: the engines' ports, and the version.
func (w *watcher) next() (ports, version string) {
	w.t.Helper()
	r, err := w.stream.Recv()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: endpointType, ResponseNonce: r.GetNonce()}); err != nil {
		w.t.Fatal(err)
	}
	if len(r.GetResources()) != 1 {
		w.t.Fatalf("%d resources", len(r.GetResources()))
	}
	a := &endpointv3.ClusterLoadAssignment{}
	if err := r.GetResources()[0].GetResource().UnmarshalTo(a); err != nil {
		w.t.Fatal(err)
	}
	for _, e := range a.GetEndpoints()[0].GetLbEndpoints() {
		ports += fmt.Sprint(e.GetEndpoint().GetAddress().GetSocketAddress().GetPortValue(), " ")
	}
	return strings.TrimSpace(ports), r.GetResources()[0].GetVersion()
}

func engines(ports ...int) []envoy.Endpoint {
	var out []envoy.Endpoint
	for _, p := range ports {
		out = append(out, envoy.Endpoint{Host: "10.0.0.2", Port: p, Models: []string{"m"}})
	}
	return out
}

func publish(t *testing.T, s *xds.Server, ports ...int) {
	t.Helper()
	if err := s.Publish(engines(ports...)); err != nil {
		t.Fatal(err)
	}
}

func TestEveryEnvoyHearsOfEveryChange(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	s := xds.New(nil)
	defer s.Stop()
	defer serve(t, s, socket)()
	first := watch(t, socket, "tollgate", nil) // before anything is known
	publish(t, s, 1)
	if got, _ := first.next(); got != "1" {
		t.Errorf("first: %q", got)
	}
	second := watch(t, socket, "another name", nil)
	if got, _ := second.next(); got != "1" {
		t.Errorf("one that comes later: %q", got)
	}
	publish(t, s, 1) // no news
	publish(t, s, 1, 2)
	for _, w := range []*watcher{first, second} {
		if got, _ := w.next(); got != "1 2" {
			t.Errorf("after an engine has come: %q", got)
		}
	}
	publish(t, s)
	if got, _ := first.next(); got != "" {
		t.Errorf("after all have gone: %q", got)
	}
}

// TestARestartIsNoNews: an Envoy that has the same engines already is told nothing,
// and one that has others is told.
func TestARestartIsNoNews(t *testing.T) {
	dir := t.TempDir()
	before := xds.New(nil)
	stop := serve(t, before, filepath.Join(dir, "1"))
	publish(t, before, 1, 2)
	_, version := watch(t, filepath.Join(dir, "1"), "tollgate", nil).next()
	before.Stop()
	stop()

	after := xds.New(nil)
	defer after.Stop()
	defer serve(t, after, filepath.Join(dir, "2"))()
	publish(t, after, 1, 2)
	w := watch(t, filepath.Join(dir, "2"), "tollgate", map[string]string{envoy.Engines: version})
	publish(t, after, 1, 2, 3)
	if got, _ := w.next(); got != "1 2 3" {
		t.Errorf("the first answer is %q, want the change alone", got)
	}
}

func TestStopEndsStreams(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	s := xds.New(nil)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	s.Register(g)
	go func() { _ = g.Serve(l) }()
	publish(t, s, 1)
	w := watch(t, socket, "tollgate", nil)
	w.next()
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stopped := make(chan struct{})
	go func() { g.GracefulStop(); close(stopped) }()
	select {
	case <-stopped:
	case <-ctx.Done():
		t.Error("a stream outlives the stop")
	}
}
