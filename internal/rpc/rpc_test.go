package rpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"tollgate/internal/rpc"
)

// note is a message that reads and writes itself: a wrapped string, as its bytes.
type note struct{ raw []byte }

func (n *note) Decode(data mem.BufferSlice) error {
	n.raw = data.Materialize()
	if len(n.raw) > 0 && n.raw[0] != 0x0a {
		return errors.New("not a string")
	}
	return nil
}

func (n *note) Encode() (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(n.raw)}, nil
}

// echo is a server whose streams answer each message with itself; opened tells of
// each stream once it has answered.
type echo struct {
	opened chan rpc.Stream
	ended  sync.WaitGroup
}

func (e *echo) handle(_ any, stream grpc.ServerStream) error {
	e.ended.Add(1)
	defer e.ended.Done()
	own, err := rpc.StreamOf(stream.Context())
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		var n note
		if err := stream.RecvMsg(&n); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(&n); err != nil {
			return err
		}
		if first {
			e.opened <- own
		}
	}
}

func (e *echo) open(t *testing.T) func() grpc.ClientStream {
	t.Helper()
	desc := grpc.StreamDesc{StreamName: "Echo", Handler: e.handle, ServerStreams: true, ClientStreams: true}
	server := grpc.NewServer(rpc.ServerOptions()...)
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "test", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{desc}}, e)
	lis := bufconn.Listen(1 << 20)
	go func() { _ = server.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		e.ended.Wait()
	})
	return func() grpc.ClientStream {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		t.Cleanup(cancel)
		s, err := conn.NewStream(ctx, &desc, "/test/Echo")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func say(s grpc.ClientStream, text string) (string, error) {
	if err := s.SendMsg(wrapperspb.String(text)); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	answer := new(wrapperspb.StringValue)
	err := s.RecvMsg(answer)
	return answer.GetValue(), err
}

var cut = status.New(codes.Unavailable, "cut")

func TestAStreamIsEndedFromOutside(t *testing.T) {
	e := &echo{opened: make(chan rpc.Stream, 1)}
	s := e.open(t)()
	if got, err := say(s, "hello"); err != nil || got != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	own := <-e.opened
	if err := own.WriteStatus(cut); err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(new(wrapperspb.StringValue)); status.Code(err) != codes.Unavailable {
		t.Errorf("the client hears %v", err)
	}
	e.ended.Wait() // the handler has returned: its RecvMsg failed
	if err := own.WriteStatus(status.New(codes.OK, "")); err != nil {
		t.Errorf("a second end is an error: %v", err)
	}
}

func TestTheFirstEndCounts(t *testing.T) {
	e := &echo{opened: make(chan rpc.Stream, 1)}
	s := e.open(t)()
	if _, err := say(s, "hello"); err != nil {
		t.Fatal(err)
	}
	own := <-e.opened
	_ = s.CloseSend()
	if err := s.RecvMsg(new(wrapperspb.StringValue)); !errors.Is(err, io.EOF) {
		t.Errorf("a stream that its handler ends: %v", err)
	}
	e.ended.Wait()
	if err := own.WriteStatus(cut); err != nil {
		t.Errorf("an end after the end: %v", err)
	}
}

func TestAStreamIsEndedWhileItTalks(t *testing.T) {
	e := &echo{opened: make(chan rpc.Stream, 1)}
	open := e.open(t)
	for range 300 {
		s := open()
		go func() { _ = (<-e.opened).WriteStatus(cut) }()
		for i := 0; ; i++ {
			got, err := say(s, "hello")
			if err == nil && got == "hello" {
				continue
			}
			if status.Code(err) != codes.Unavailable {
				t.Fatalf("after %d answers: %q, %v", i, got, err)
			}
			break
		}
	}
}

func TestManyStreamsAtATime(t *testing.T) {
	e := &echo{opened: make(chan rpc.Stream, 200)}
	open := e.open(t)
	var streams []grpc.ClientStream
	for range 200 { // more than there are workers
		s := open()
		if got, err := say(s, "hello"); err != nil || got != "hello" {
			t.Fatalf("stream %d: %q, %v", len(streams), got, err)
		}
		streams = append(streams, s)
	}
	for i, s := range streams {
		if got, err := say(s, "again"); err != nil || got != "again" {
			t.Errorf("stream %d: %q, %v", i, got, err)
		}
	}
}
