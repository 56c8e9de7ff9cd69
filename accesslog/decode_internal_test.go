package accesslog

import (
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"tollgate/internal/ticket"
)

// generated reads an entry by way of the generated code: the reference.
func generated(m *datav3.HTTPAccessLogEntry) entry {
	c, req, resp := m.GetCommonProperties(), m.GetRequest(), m.GetResponse()
	since := func(d *durationpb.Duration) moment { return moment{d.GetSeconds(), d.GetNanos(), d != nil} }
	f := c.GetMetadata().GetFilterMetadata()[ticket.Namespace].GetFields()
	return entry{
		kind:        int32(c.GetAccessLogType()),
		ticket:      ticket.Ticket{LeaseID: f["lease"].GetStringValue(), KeyID: f["key"].GetStringValue(), Reason: f["reason"].GetStringValue()},
		client:      c.GetDownstreamRemoteAddress().GetSocketAddress().GetAddress(),
		clientEnded: c.GetResponseFlags().GetDownstreamConnectionTermination(), clientReset: c.GetResponseFlags().GetDownstreamRemoteReset(),
		started:   moment{c.GetStartTime().GetSeconds(), c.GetStartTime().GetNanos(), c.GetStartTime() != nil},
		firstByte: since(c.GetTimeToFirstDownstreamTxByte()), last: since(c.GetTimeToLastDownstreamTxByte()), duration: since(c.GetDuration()),
		method: int32(req.GetRequestMethod()), path: req.GetPath(), requestID: req.GetRequestId(), bytesIn: req.GetRequestBodyBytes(),
		status: resp.GetResponseCode().GetValue(), details: resp.GetResponseCodeDetails(), bytesOut: resp.GetResponseBodyBytes(),
	}
}

func checkDecoding(t *testing.T, m *alsv3.StreamAccessLogsMessage) {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	b := batch{entries: []entry{{path: "of the message before"}}}
	if err := b.Decode(mem.BufferSlice{mem.SliceBuffer(raw)}); err != nil {
		t.Fatalf("%v: %v", m, err)
	}
	want := []entry{}
	for _, e := range m.GetHttpLogs().GetLogEntry() {
		want = append(want, generated(e))
	}
	if diff := cmp.Diff(want, b.entries, cmp.AllowUnexported(entry{}, moment{})); diff != "" {
		t.Errorf("%v (-want +got)\n%s", m, diff)
	}
}

func logs() []*alsv3.StreamAccessLogsMessage {
	of := func(entries ...*datav3.HTTPAccessLogEntry) *alsv3.StreamAccessLogsMessage {
		return &alsv3.StreamAccessLogsMessage{
			Identifier: &alsv3.StreamAccessLogsMessage_Identifier{LogName: "tollgate"},
			LogEntries: &alsv3.StreamAccessLogsMessage_HttpLogs{HttpLogs: &alsv3.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: entries}},
		}
	}
	whole := &datav3.HTTPAccessLogEntry{
		ProtocolVersion: datav3.HTTPAccessLogEntry_HTTP2,
		CommonProperties: &datav3.AccessLogCommon{
			AccessLogType: datav3.AccessLogType_DownstreamEnd,
			DownstreamRemoteAddress: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: "192.0.2.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 7},
			}}},
			UpstreamRemoteAddress: &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/tmp/socket"}}},
			StartTime:             &timestamppb.Timestamp{Seconds: -1, Nanos: 999999999}, Duration: durationpb.New(3 * time.Second),
			TimeToFirstDownstreamTxByte: durationpb.New(time.Millisecond), TimeToLastDownstreamTxByte: durationpb.New(0),
			ResponseFlags: &datav3.ResponseFlags{DownstreamConnectionTermination: true, DownstreamRemoteReset: true},
			Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
				"other": {},
				ticket.Namespace: {Fields: map[string]*structpb.Value{
					"lease": structpb.NewStringValue("l"), "key": structpb.NewStringValue("k"), "reason": structpb.NewStringValue("tokens"),
				}},
			}},
		},
		Request: &datav3.HTTPRequestProperties{
			RequestMethod: corev3.RequestMethod_POST, Path: "/v1/completions", RequestId: "r", RequestBodyBytes: 1 << 40,
			Authority: "gate.example", RequestHeaders: map[string]string{"a": "b"},
		},
		Response: &datav3.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(200), ResponseBodyBytes: 7, ResponseCodeDetails: "via_upstream"},
	}
	return []*alsv3.StreamAccessLogsMessage{
		{},
		of(),
		of(&datav3.HTTPAccessLogEntry{}),
		of(whole, &datav3.HTTPAccessLogEntry{Response: &datav3.HTTPResponseProperties{}}, whole),
		{LogEntries: &alsv3.StreamAccessLogsMessage_TcpLogs{TcpLogs: &alsv3.StreamAccessLogsMessage_TCPAccessLogEntries{
			LogEntry: []*datav3.TCPAccessLogEntry{{CommonProperties: whole.CommonProperties}},
		}}},
	}
}

func TestEntriesAreReadAsTheGeneratedCodeReadsThem(t *testing.T) {
	for _, m := range logs() {
		checkDecoding(t, m)
	}
}

func FuzzEntriesAreReadAsTheGeneratedCodeReadsThem(f *testing.F) {
	for _, m := range logs() {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		_ = new(batch).Decode(mem.BufferSlice{mem.SliceBuffer(raw)}) // an error or not, but no panic
		// Encoded anew it is what Envoy could have written: no field twice, none
		// of another type.
		m := new(alsv3.StreamAccessLogsMessage)
		if (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, m) == nil {
			checkDecoding(t, m)
		}
	})
}
