package extproc

import (
	"bytes"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	"tollgate/internal/openai"
	"tollgate/internal/rpc"
)

func encoded(t *testing.T, out *outbound) *extprocv3.ProcessingResponse {
	t.Helper()
	data, err := out.Encode()
	if err != nil {
		t.Fatal(err)
	}
	defer data.Free()
	m := new(extprocv3.ProcessingResponse)
	if err := proto.Unmarshal(data.Materialize(), m); err != nil {
		t.Fatal(err)
	}
	return m
}

func texts(pairs ...string) *structpb.Value {
	s := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for i := 0; i < len(pairs); i += 2 {
		s.Fields[pairs[i]] = structpb.NewStringValue(pairs[i+1])
	}
	return structpb.NewStructValue(s)
}

func setting(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, RawValue: []byte(value)},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

func TestAnswersAreWhatTheGeneratedCodeReads(t *testing.T) {
	set := []openai.Header{{Name: "a", Value: ""}, {Name: "x-ratelimit-limit-requests", Value: strings.Repeat("9", 300)}}
	headers := func(mode *filterv3.ProcessingMode, set ...*corev3.HeaderValueOption) *extprocv3.ProcessingResponse {
		return &extprocv3.ProcessingResponse{
			Response: &extprocv3.ProcessingResponse_ResponseHeaders{ResponseHeaders: &extprocv3.HeadersResponse{Response: &extprocv3.CommonResponse{
				HeaderMutation: &extprocv3.HeaderMutation{
					SetHeaders:    set,
					RemoveHeaders: []string{"access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"},
				},
			}}},
			ModeOverride: mode,
		}
	}
	prompt := rpc.Buffers.Get(70000)
	copy(*prompt, bytes.Repeat([]byte("p"), 70000))
	for name, c := range map[string]struct {
		got  *outbound
		want *extprocv3.ProcessingResponse
	}{
		"no body": {responseHeaders(nil, bodyNone), headers(&filterv3.ProcessingMode{})},
		"streamed": {
			responseHeaders(set, bodyStreamed),
			headers(&filterv3.ProcessingMode{ResponseBodyMode: filterv3.ProcessingMode_STREAMED}, setting("a", ""), setting(set[1].Name, set[1].Value)),
		},
		"a chunk": {&outbound{chunk: []byte("data: x\n\n")}, &extprocv3.ProcessingResponse{
			Response: &extprocv3.ProcessingResponse_ResponseBody{ResponseBody: &extprocv3.BodyResponse{Response: &extprocv3.CommonResponse{
				BodyMutation: &extprocv3.BodyMutation{Mutation: &extprocv3.BodyMutation_Body{Body: []byte("data: x\n\n")}},
			}}},
		}},
		"a prompt": {&outbound{request: prompt}, &extprocv3.ProcessingResponse{
			Response: &extprocv3.ProcessingResponse_RequestBody{RequestBody: &extprocv3.BodyResponse{Response: &extprocv3.CommonResponse{
				BodyMutation: &extprocv3.BodyMutation{Mutation: &extprocv3.BodyMutation_Body{Body: bytes.Repeat([]byte("p"), 70000)}},
			}}},
		}},
		"metadata": {
			&outbound{prepared: appendMetadata(appendMetadata(nil, "one", field{"a", "b"}, field{"c", ""}), "two", field{"d", "e"})},
			&extprocv3.ProcessingResponse{DynamicMetadata: &structpb.Struct{Fields: map[string]*structpb.Value{
				"one": texts("a", "b", "c", ""), "two": texts("d", "e"),
			}}},
		},
	} {
		if diff := cmp.Diff(c.want, encoded(t, c.got), protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}
