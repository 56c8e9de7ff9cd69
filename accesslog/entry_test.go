package accesslog_test

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"tollgate/accesslog"
	"tollgate/internal/admission"
	"tollgate/internal/rpc"
)

// listener keeps what it is told.
type listener struct {
	told chan admission.Witness
	gone chan struct{}
}

func (l *listener) Witness(w admission.Witness) { l.told <- w }
func (l *listener) ProxyGone()                  { l.gone <- struct{}{} }

// connect serves als in memory and returns a way to open log streams.
func connect(t *testing.T, als *accesslog.Server) func() alsv3.AccessLogService_StreamAccessLogsClient {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	srv := grpc.NewServer(rpc.ServerOptions()...)
	accesslog.Register(srv, als)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(lis)
	}()
	conn, err := grpc.NewClient("passthrough:///als", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); srv.Stop(); <-done })
	return func() alsv3.AccessLogService_StreamAccessLogsClient {
		s, err := alsv3.NewAccessLogServiceClient(conn).StreamAccessLogs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func entry(details string, flags *datav3.ResponseFlags, last time.Duration) *alsv3.StreamAccessLogsMessage {
	common := &datav3.AccessLogCommon{ResponseFlags: flags}
	if last > 0 {
		common.TimeToLastDownstreamTxByte = durationpb.New(last)
	}
	e := &datav3.HTTPAccessLogEntry{
		CommonProperties: common,
		Request:          &datav3.HTTPRequestProperties{RequestMethod: corev3.RequestMethod_POST, Path: "/v1/chat/completions", RequestId: "req-1"},
		Response:         &datav3.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(200), ResponseCodeDetails: details},
	}
	return &alsv3.StreamAccessLogsMessage{LogEntries: &alsv3.StreamAccessLogsMessage_HttpLogs{
		HttpLogs: &alsv3.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: []*datav3.HTTPAccessLogEntry{e}},
	}}
}

func TestEntriesSayWhyARequestEnded(t *testing.T) {
	l := &listener{told: make(chan admission.Witness, 1), gone: make(chan struct{}, 1)}
	stream := connect(t, accesslog.NewServer(l))()
	for name, c := range map[string]struct {
		msg  *alsv3.StreamAccessLogsMessage
		want admission.Cause
	}{
		"whole":                        {entry("via_upstream", nil, time.Second), admission.CauseNone},
		"the client's connection ends": {entry("downstream_remote_disconnect", &datav3.ResponseFlags{DownstreamConnectionTermination: true}, 0), admission.CauseClient},
		"the client resets":            {entry("via_upstream", &datav3.ResponseFlags{DownstreamRemoteReset: true}, time.Second), admission.CauseClient},
		"the client resets, no error":  {entry("via_upstream", nil, 0), admission.CauseClient},
		"the engine cuts":              {entry("upstream_reset_after_response_started{connection_termination}", nil, 0), admission.CauseUpstream},
		"we refuse":                    {entry("ext_authz_denied", nil, time.Second), admission.CauseDenied},
	} {
		if err := stream.Send(c.msg); err != nil {
			t.Fatal(err)
		}
		if w := <-l.told; w.Cause != c.want || w.Endpoint != "/v1/chat/completions" || w.Method != http.MethodPost || w.RequestID != "req-1" {
			t.Errorf("%s: got %+v, want cause %d", name, w, c.want)
		}
	}
}

func TestTheEndOfTheLastLogStreamIsTheProxysOwn(t *testing.T) {
	l := &listener{told: make(chan admission.Witness, 2), gone: make(chan struct{}, 2)}
	als := accesslog.NewServer(l)
	open := connect(t, als)
	first, second := open(), open()
	for _, s := range []alsv3.AccessLogService_StreamAccessLogsClient{first, second} {
		if err := s.Send(entry("via_upstream", nil, time.Second)); err != nil {
			t.Fatal(err)
		}
		<-l.told
	}
	if err := first.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for als.Streams() != 1 {
		time.Sleep(time.Millisecond)
	}
	select {
	case <-l.gone:
		t.Fatal("the proxy was said to be gone while a log stream was open")
	default:
	}
	if err := second.CloseSend(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-l.gone:
	case <-time.After(5 * time.Second):
		t.Fatal("the end of the last log stream was not told")
	}
}

func TestOurOwnStopIsNotTheProxysEnd(t *testing.T) {
	l := &listener{told: make(chan admission.Witness, 1), gone: make(chan struct{}, 1)}
	als := accesslog.NewServer(l)
	s := connect(t, als)()
	if err := s.Send(entry("via_upstream", nil, time.Second)); err != nil {
		t.Fatal(err)
	}
	<-l.told
	als.Stop()
	if _, err := s.CloseAndRecv(); err == nil {
		t.Error("a stopped log stream ended without an error")
	}
	if len(l.gone) != 0 {
		t.Error("our own stop was taken for the proxy's end")
	}
}
