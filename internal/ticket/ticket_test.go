package ticket_test

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"tollgate/internal/ticket"
)

func metadata(t *testing.T, of map[string]*structpb.Struct) []byte {
	t.Helper()
	b, err := proto.Marshal(&corev3.Metadata{FilterMetadata: of})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestATicketComesBackAsItWasSent(t *testing.T) {
	for _, want := range []ticket.Ticket{{}, {LeaseID: "l", KeyID: "k"}, {LeaseID: "l", Issuer: "i", Facts: "f"}, {Reason: "requests"}, {LeaseID: "ü\n\"", KeyID: "k", Reason: "r"}} {
		s := new(structpb.Struct)
		if err := proto.Unmarshal(want.Append(nil), s); err != nil {
			t.Fatalf("%+v is written as no google.protobuf.Struct: %v", want, err)
		}
		other := &structpb.Struct{Fields: map[string]*structpb.Value{"lease": structpb.NewStringValue("another's")}}
		got, err := ticket.Decode(metadata(t, map[string]*structpb.Struct{ticket.Namespace: s, "another": other}))
		if err != nil || got != want {
			t.Errorf("sent %+v, got %+v, %v", want, got, err)
		}
	}
}

func TestWhatIsNoTextIsNoTicket(t *testing.T) {
	s := &structpb.Struct{Fields: map[string]*structpb.Value{"lease": structpb.NewNumberValue(1), "key": structpb.NewNullValue()}}
	if got, err := ticket.Decode(metadata(t, map[string]*structpb.Struct{ticket.Namespace: s})); err != nil || got != (ticket.Ticket{}) {
		t.Errorf("got %+v, %v", got, err)
	}
}
