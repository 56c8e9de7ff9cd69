package xds

import (
	"context"
	"fmt"
	"hash/fnv"
	"strconv"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"tollgate/envoy"
)

// everybody is the one node of the cache: all Envoys of a tollgate have the same
// engines, whatever they call themselves.
const everybody = "edge"

type node struct{}

// ID implements the cache's way to tell Envoys apart.
func (node) ID(*corev3.Node) string { return everybody }

// Server is the management server. Its zero value is not usable.
type Server struct {
	cache  cache.SnapshotCache
	server server.Server
	stop   context.CancelFunc
	log    hclog.Logger

	mu      sync.Mutex
	version string // of the last snapshot; guarded by mu
}

// New returns a server without an answer: Envoys that ask wait, and keep what they
// have, until the first [Server.Publish].
func New(log hclog.Logger) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{cache: cache.NewSnapshotCache(true, node{}, nil), stop: cancel, log: log}
	if s.log == nil {
		s.log = hclog.NewNullLogger()
	}
	s.server = server.NewServer(ctx, s.cache, server.CallbackFuncs{
		StreamDeltaRequestFunc: func(_ int64, r *discoveryv3.DeltaDiscoveryRequest) error {
			if e := r.GetErrorDetail(); e != nil {
				s.log.Error("Envoy refuses the engines that it was told", "error", e.GetMessage())
			}
			return nil
		},
	})
	return s
}

// Register adds the service to a gRPC server.
func (s *Server) Register(g *grpc.Server) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s.server)
}

// Stop ends all streams. Envoys keep their engines.
func (s *Server) Stop() { s.stop() }

// Publish tells all Envoys, those that connect later included, what the engines are
// now. The same engines again are no news.
func (s *Server) Publish(engines []envoy.Endpoint) error {
	assignment, err := Assignment(engines)
	if err != nil {
		return err
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(assignment)
	if err != nil {
		return fmt.Errorf("encode engines: %w", err)
	}
	sum := fnv.New64a()
	_, _ = sum.Write(raw) // never fails
	version := strconv.FormatUint(sum.Sum64(), 16)
	s.mu.Lock()
	defer s.mu.Unlock()
	if version == s.version {
		return nil
	}
	snapshot, err := cache.NewSnapshot(version, map[resource.Type][]types.Resource{resource.EndpointType: {assignment}})
	if err == nil {
		err = s.cache.SetSnapshot(context.Background(), everybody, snapshot)
	}
	if err != nil {
		return fmt.Errorf("publish engines: %w", err)
	}
	s.version = version
	return nil
}
